"""`sensorimotor train critic=...`: a critic in place of a policy, on the same data."""

from datetime import datetime
from pathlib import Path

from ..configs.train import TrainConfig
from ..configs.typed import plain
from ..data.files import write_json
from ..rl.factory import CriticConfig, describe_critic, make_critic, make_transitions
from ..rl.offline import OfflineCritic
from ..training.loop import train
from ..training.run import write_config
from .console import Screen, training_progress
from .health import say_health
from .learning import Lesson, check_task
from .names import policy_name
from .outcome import announce, facts, interrupted, say_interrupted, sum_up


def train_critic(
    config: TrainConfig, wanted: CriticConfig, lesson: Lesson, folder: Path, screen: Screen
) -> int:
    """Train a critic, say how healthy it is and what it is good for; the exit code."""
    critic = make_critic(wanted, lesson.training, seed=config.seed)
    if config.task is not None:
        check_task(critic.spec, config.task)
    source = make_transitions(critic, lesson.training)
    announce(config, lesson, critic, policy_name(wanted), folder, screen)
    say_labels(lesson, critic, screen)
    write_config(folder, plain(config))
    outcome = train(
        critic,
        source,
        config.training,
        folder,
        held_out=None if lesson.held_out is None else make_transitions(critic, lesson.held_out),
        describe=lambda where: describe_critic(critic, where),
        resume=config.resume and (folder / "checkpoints" / "last").exists(),
        progress=training_progress(screen, config.training.steps),
    )
    write_json(folder / "outcome.json", facts(lesson, critic, outcome, folder, now=datetime.now()))
    if interrupted(outcome, config):
        return say_interrupted(outcome, config, folder, screen)
    sum_up(outcome, screen)
    say_health(folder, screen)
    screen.say(f"run folder: {folder}")
    screen.say(f"next: sensorimotor rerank policy=runs/<a policy's run> critic={folder}")
    return 0


def say_labels(lesson: Lesson, critic: OfflineCritic, screen: Screen) -> None:
    """Say what is worth something, since nobody looks that up."""
    labels, success = critic.config.labels, lesson.training.success
    if labels.source == "rewards":
        told = "the data's own rewards"
    elif success is None:
        told = "every episode counts as a success: the data says nothing about it"
    else:
        told = f"{int(success.sum())} of {len(success)} episodes succeeded"
    screen.note(f"labels      {told}; discount {labels.discount:g}")
