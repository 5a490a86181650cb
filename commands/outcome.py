"""What is said of a training before and after it, whatever was trained."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from ..configs.train import TrainConfig
from ..training.loop import Outcome
from ..training.metrics import read_metrics
from .console import Screen, duration
from .learning import Lesson


def announce(
    config: TrainConfig, lesson: Lesson, model: nn.Module, name: str, folder: Path, screen: Screen
) -> None:
    """Say where the run goes, what is learned from, and what `name` is trained."""
    parameters = sum(p.numel() for p in model.parameters())
    held_out = 0 if lesson.held_out is None else len(lesson.held_out)
    mirrored = ", each also mirrored" if config.data.mirror else ""
    screen.note(f"run folder  {folder}")
    screen.note(
        f"data        {lesson.recorded - held_out} episodes{mirrored}, {lesson.training.steps:,} steps; "
        f"{held_out} held out"
    )
    screen.note(f"{'policy' if config.critic is None else 'critic':<12}{name}, {parameters:,} parameters")


def facts(
    lesson: Lesson, model: nn.Module, outcome: Outcome | None, folder: Path, *, now: datetime
) -> dict[str, Any]:
    """What the report says about the training, over all calls of it."""
    seconds = [row["seconds"] for row in read_metrics(folder) if row.get("seconds") is not None]
    known: dict[str, Any] = {
        "finished": f"{now:%Y-%m-%d %H:%M}",
        "seconds": seconds[-1] if seconds else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": {
            "episodes": len(lesson.training),
            "steps": lesson.training.steps,
            "recorded": lesson.recorded,
            "held_out": 0 if lesson.held_out is None else len(lesson.held_out),
        },
    }
    return known | ({"training": asdict(outcome)} if outcome is not None else {})


def interrupted(outcome: Outcome, config: TrainConfig) -> bool:
    """Whether training was asked to stop, rather than having used up its time."""
    minutes = config.training.minutes
    return outcome.stopped and (minutes is None or outcome.seconds < 60 * minutes)


def say_interrupted(outcome: Outcome, config: TrainConfig, folder: Path, screen: Screen) -> int:
    """Say how to go on; the exit code."""
    screen.say(f"stopped after {outcome.steps:,} of {config.training.steps:,} updates; everything is saved")
    screen.say(f"go on: sensorimotor train run={folder} resume=true")
    return 0


def sum_up(outcome: Outcome, screen: Screen) -> None:
    """Say what was done, how fast, and to what loss."""
    best = "" if outcome.best_held_out is None else f", best held-out loss {outcome.best_held_out:.4g}"
    screen.say(
        f"trained {outcome.steps:,} updates in {duration(outcome.seconds)} "
        f"({outcome.updates_per_second:.1f} per second), loss {outcome.loss:.4g}{best}"
    )
