"""What a policy learns from, checked before anything is trained, and the training itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.train import BUNDLED, DataConfig
from ..data.episodes import Episodes, concatenate
from ..data.errors import DataError
from ..data.formats import load_dataset
from ..data.spec import check_connection
from ..data.windows import Windows, split_episodes
from ..policies.factory import describe
from ..policies.nearest import NearestPolicy
from ..policies.policy import Policy
from ..sim.demos import DEMONSTRATIONS, mirrored
from ..sim.manipulation.task import RobosuiteConfig
from ..sim.push_t import PushTConfig
from ..sim.push_t_human import PushTHumanConfig
from ..sim.tasks import TaskConfig, make_task
from ..training.checkpoint import MODEL, save_checkpoint, save_weights
from ..training.config import TrainingConfig
from ..training.loop import Outcome, train
from .console import Screen, training_progress


@dataclass(frozen=True)
class Lesson:
    """The episodes of one run.

    Attributes:
        training: to learn from, mirrored copies included.
        held_out: for the held-out loss, or None.
        recorded: how many episodes there were before any were mirrored.
    """

    training: Episodes
    held_out: Episodes | None
    recorded: int


def load_lesson(config: DataConfig, task: TaskConfig | None, *, seed: int) -> Lesson:
    """Read, check, split, and mirror where asked; a held-out episode's mirror image is held out with it.

    Raises:
        DataError: if the data is unreadable or holds numbers that are not finite, naming where.
    """
    if config.path == BUNDLED and not isinstance(task, PushTConfig):
        raise DataError("data.path=bundled is for task=push_t; give data.path=<your dataset>")
    path = DEMONSTRATIONS if config.path == BUNDLED else Path(config.path)
    options: dict[str, Any] = {} if config.control_hz is None else {"control_hz": config.control_hz}
    episodes = load_dataset(path, format=config.format, **options)
    if config.episodes is not None and config.episodes < len(episodes):
        episodes = episodes.select(np.arange(config.episodes))
    training, held_out = split_episodes(
        episodes, held_out=config.held_out, generator=np.random.default_rng(seed)
    )
    return Lesson(
        training=_prepared(training, task, mirror=config.mirror),
        held_out=None if held_out is None else _prepared(held_out, task, mirror=False),
        recorded=len(episodes),
    )


def _prepared(episodes: Episodes, task: TaskConfig | None, *, mirror: bool) -> Episodes:
    """The episodes as the task describes them, with their mirror images where asked."""
    match task:
        case PushTHumanConfig() if "environment" not in episodes.observation:
            from ..sim.push_t_human import demonstrations

            return demonstrations(episodes, mirror=mirror)
        case RobosuiteConfig() if not mirror and "state" not in episodes.observation:
            from ..sim.manipulation.recordings import demonstrations

            return demonstrations(episodes, task.task)
        case PushTConfig() if mirror:
            return concatenate([episodes, mirrored(episodes)])
        case _ if mirror:
            raise DataError("no mirror symmetry is known for this data; use data.mirror=false")
    return episodes


def check_task(policy: Policy, task: TaskConfig) -> None:
    """Raise before hours of training rather than after them if the policy does not fit the task.

    Raises:
        SpecError: naming the field and both values.
    """
    world = make_task(task, worlds=1)
    try:
        check_connection(policy.spec, world.spec, user_name="dataset")
    finally:
        world.close()


def fit(
    policy: Policy, lesson: Lesson, config: TrainingConfig, folder: Path, screen: Screen, *, resume: bool
) -> Outcome | None:
    """Train a policy, its checkpoints in `folder`; None if it is complete as made, and only has to be saved."""
    if isinstance(policy, NearestPolicy):
        save_checkpoint(
            folder / "checkpoints" / "last",
            lambda where: describe(policy, where),
            lambda where: save_weights(policy, where / MODEL),
        )
        return None
    return train(
        policy,
        Windows(lesson.training, policy.spec),
        config,
        folder,
        held_out=None if lesson.held_out is None else Windows(lesson.held_out, policy.spec),
        describe=lambda where: describe(policy, where),
        resume=resume and (folder / "checkpoints" / "last").exists(),
        progress=training_progress(screen, config.steps),
    )
