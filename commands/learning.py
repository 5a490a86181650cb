"""What a policy learns from, checked before anything is trained, and the training itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.train import BUNDLED, DataConfig
from ..data.episodes import Episodes, concatenate
from ..data.errors import DataError
from ..data.formats import detect_format, load_dataset
from ..data.formats.robomimic import write_robomimic
from ..data.instructions import INSTRUCTION, with_instruction
from ..data.spec import Spec, check_connection
from ..data.windows import Windows, split_episodes
from ..policies.chunk import ChunkConfig
from ..policies.factory import describe
from ..policies.nearest import NearestPolicy
from ..policies.policy import Policy
from ..sim.demonstrator import expert_of
from ..sim.demos import DEMONSTRATIONS, record_demos
from ..sim.manipulation.task import RobosuiteConfig
from ..sim.mirror import mirrored
from ..sim.pixels import CAMERA, with_images
from ..sim.push_t import PushTConfig
from ..sim.push_t_human import PushTHumanConfig
from ..sim.tasks import TaskConfig, make_task
from ..training.checkpoint import MODEL, save_checkpoint, save_weights
from ..training.config import TrainingConfig
from ..training.loop import Outcome, train
from .console import Screen, training_progress

FRAMES = "frames.hdf5"  # of a run whose data holds none


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


def record_if_absent(config: DataConfig, task: TaskConfig | None, screen: Screen) -> None:
    """Record the expert's demonstrations where the data asks for it and there are none yet; frames are drawn later."""
    path = Path(config.path)
    if config.record is None or config.path == BUNDLED or path.exists():
        return
    if task is None or path.suffix not in (".hdf5", ".h5"):
        raise DataError(
            f"there is no {path}, and only tasks are recorded, into a .hdf5 file; give data.path=<your dataset>"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    blind = replace(task, images=False) if isinstance(task, PushTConfig) else task
    with screen.progress("recording") as update:
        recording = record_demos(blind, expert_of(task), episodes=config.record, progress=update)
    write_robomimic(recording.episodes, path, compression="gzip")
    screen.note(f"recorded    {path}, {config.record} episodes")


def load_lesson(
    config: DataConfig,
    task: TaskConfig | None,
    *,
    seed: int,
    folder: Path,
    screen: Screen,
    told: bool = False,
) -> Lesson:
    """Read, check, split, and mirror where asked; a held-out episode's mirror image is held out with it.

    Args:
        config: what to read.
        task: what it is for; frames that `push_t` would show, and the data lacks, are drawn.
        seed: of the split.
        folder: the run folder, where drawn frames are kept.
        screen: told about drawing.
        told: make the tasks of a recording an observation `instruction`, if it has none.

    Raises:
        DataError: if the data is unreadable or holds numbers that are not finite, naming where.
    """
    if config.path == BUNDLED and not isinstance(task, PushTConfig):
        raise DataError("data.path=bundled is for task=push_t; give data.path=<your dataset>")
    path = DEMONSTRATIONS if config.path == BUNDLED else Path(config.path)
    options: dict[str, Any] = {} if config.control_hz is None else {"control_hz": config.control_hz}
    if config.lazy_images or (config.lazy_images is None and _is_hdf5(config, path)):
        options["lazy_images"] = True
    episodes = load_dataset(path, format=config.format, **options)
    if told and INSTRUCTION not in episodes.observation:
        episodes = with_instruction(episodes)
    if config.episodes is not None and config.episodes < len(episodes):
        episodes = episodes.select(np.arange(config.episodes))
    if isinstance(task, PushTConfig) and task.images and CAMERA not in episodes.observation:
        episodes = _drawn(episodes, task, folder / FRAMES, screen)
    training, held_out = split_episodes(
        episodes, held_out=config.held_out, generator=np.random.default_rng(seed)
    )
    return Lesson(
        training=_prepared(training, task, mirror=config.mirror),
        held_out=None if held_out is None else _prepared(held_out, task, mirror=False),
        recorded=len(episodes),
    )


def _is_hdf5(config: DataConfig, path: Path) -> bool:
    return path.is_file() and (config.format or detect_format(path)) == "robomimic"


def _drawn(episodes: Episodes, task: PushTConfig, path: Path, screen: Screen) -> Episodes:
    """The episodes with frames, from the run's own file, which is written if it does not hold these."""
    size = task.image_size
    if path.exists():
        kept = load_dataset(path, lazy_images=True)
        field = kept.spec.observation.get(CAMERA)
        same = np.array_equal(kept.action, episodes.action) and np.array_equal(kept.ends, episodes.ends)
        if same and field is not None and field.shape == (size, size, 3):
            return kept
    screen.note(f"the data holds no camera frames; drawing {episodes.steps:,} of {size} px into {path}")
    with screen.progress("drawing") as update:
        write_robomimic(
            with_images(episodes, size, goals=task.goals, progress=update), path, compression="gzip"
        )
    return load_dataset(path, lazy_images=True)


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


def check_task(spec: Spec, task: TaskConfig) -> None:
    """Raise before hours of training rather than after them if what is trained does not fit the task.

    Raises:
        SpecError: naming the field and both values.
    """
    world = make_task(task, worlds=1)
    try:
        check_connection(spec, world.spec, user_name="dataset")
    finally:
        world.close()


def numbers_of(chunk: ChunkConfig, spec: Spec) -> ChunkConfig:
    """The same chunk without the cameras and words of its observation, for baselines that read neither."""
    seen = [key for key in chunk.observation if not spec.observation[key].is_image]
    return replace(chunk, observation=tuple(key for key in seen if not spec.observation[key].is_text))


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
