"""Policies on a task beside the baselines: run, shown as a table, written to evaluation.json."""

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from ..configs.train import Baseline, EvaluationConfig, Execution
from ..data.errors import ConfigError
from ..data.files import write_json
from ..data.schema import to_mapping
from ..data.spec import Spec
from ..policies.asynchronous import Asynchronous
from ..policies.delivery import SimulatedDelay
from ..policies.execution import (
    RecedingHorizon,
    RecedingHorizonConfig,
    Runner,
    TemporalEnsemble,
    TemporalEnsembleConfig,
)
from ..policies.policy import Policy
from ..sim.baselines import HoldStill, UniformRandom
from ..sim.evaluation import Evaluation, evaluate
from ..sim.task import Task
from ..sim.tasks import TaskConfig, make_task, task_name
from .console import Screen
from .names import milliseconds
from .runs import EVALUATION, VIDEOS

NAMES: Mapping[Baseline, str] = {
    "hold_still": "hold still",
    "random": "random actions",
    "nearest": "nearest neighbour",
    "regressor": "regressor",
}


def judge(
    policy: Policy,
    name: str,
    task: TaskConfig,
    config: EvaluationConfig,
    folder: Path,
    screen: Screen,
    *,
    fitted: Mapping[Baseline, Callable[[], Policy]],
    now: datetime,
    parts: Mapping[str, Policy] | None = None,
) -> dict[str, Any]:
    """Evaluate a policy and the wanted baselines on the same starts; show the table, write the files.

    Args:
        policy: what is evaluated.
        name: of the policy, in tables.
        task: where.
        config: how.
        folder: gets evaluation.json and videos/.
        screen: shows progress and the table.
        fitted: makes the baselines that need data.
        now: written into the file.
        parts: more policies to compare with, by name: what this one is made of.

    Returns:
        What was written.
    """
    worlds = make_task(task, worlds=min(config.worlds, config.episodes))
    try:
        others = dict(parts or {}) | {
            NAMES[b]: _baseline(b, worlds.spec, fitted) for b in config.baselines or ()
        }
        own = _roll_out(policy, name, worlds, config, screen, folder=folder)
        results = [own, *(_roll_out(other, title, worlds, config, screen) for title, other in others.items())]
    finally:
        worlds.close()
    values = {"when": f"{now:%Y-%m-%d %H:%M}", **_circumstances(policy, task, config)}
    values["policy"] = _relative(own.to_dict(), folder)
    values["baselines"] = [result.to_dict() for result in results[1:]]
    write_json(folder / EVALUATION, values)
    last = config.seed + config.episodes - 1
    screen.say(f"{values['task_name']}: {config.episodes} starts, seeds {config.seed} to {last}")
    screen.table(table(results))
    return values


def _roll_out(
    policy: Policy,
    name: str,
    worlds: Task,
    config: EvaluationConfig,
    screen: Screen,
    *,
    folder: Path | None = None,
) -> Evaluation:
    """Evaluate one policy; with a folder it is the one in question, executed as wanted and recorded."""
    with screen.progress(f"evaluating {name}") as update:
        return evaluate(
            policy,
            worlds,
            episodes=config.episodes,
            first_seed=config.seed,
            runner=_runner(config) if folder else None,
            videos=min(config.video, config.episodes) if folder else 0,
            folder=folder / VIDEOS if folder and config.video else None,
            name=name,
            progress=update,
        )


def _circumstances(policy: Policy, task: TaskConfig, config: EvaluationConfig) -> dict[str, Any]:
    """What the numbers were measured under."""
    sampler = getattr(policy, "sampler", None)
    return {
        "task_name": task_name(task),
        "task": to_mapping(task),
        "control_hz": policy.spec.control_hz,
        "execution": to_mapping(config.execution),
        "delay": config.delay,
        "execute": _executed(config.execution, policy.spec),
        "sampler": None if sampler is None else to_mapping(sampler),
    }


def _baseline(name: Baseline, spec: Spec, fitted: Mapping[Baseline, Callable[[], Policy]]) -> Policy:
    match name:
        case "hold_still":
            return HoldStill(spec)
        case "random":
            return UniformRandom(spec)
        case "nearest" | "regressor":
            if name not in fitted:
                raise ConfigError(
                    f"this checkpoint brings no baseline {name!r}: leave it out, give the run folder as checkpoint=, "
                    f"or train a run with evaluation.baselines={name}"
                )
            return fitted[name]()
        case _:
            assert_never(name)


def _executed(execution: Execution, spec: Spec) -> int:
    """Actions executed per prediction."""
    match execution:
        case RecedingHorizonConfig():
            return spec.execute
        case TemporalEnsembleConfig():
            return 1
        case _:
            return execution.after(spec)


def _runner(config: EvaluationConfig) -> Callable[[Policy, torch.Generator], Runner]:
    match config.execution:
        case RecedingHorizonConfig():
            return lambda policy, generator: RecedingHorizon(policy, generator=generator)
        case TemporalEnsembleConfig(decay=decay):
            return lambda policy, generator: TemporalEnsemble(policy, generator=generator, decay=decay)
        case _ as mode:
            return lambda policy, generator: Asynchronous(
                policy, mode, SimulatedDelay(config.delay), generator=generator
            )


def _relative(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Video paths relative to the folder, so that it can be moved."""
    return values | {"videos": [Path(os.path.relpath(path, folder)).as_posix() for path in values["videos"]]}


def table(results: list[Evaluation]) -> Table:
    """One row per policy: success and score with 95 % intervals, and median latency; fits 80 columns."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("policy", no_wrap=True)
    for column in ("success [95 %]", "score [95 %]", "latency"):
        shown.add_column(column, justify="right", no_wrap=True)
    for i, result in enumerate(results):
        latency = milliseconds(float(np.median(result.latency_ms))) if len(result.latency_ms) else ""
        cells = (result.policy, result.success_rate.percent(), result.mean_reward.decimal(), latency)
        shown.add_row(*(Text(cell) for cell in cells), style="bold" if i == 0 else "")
    return shown
