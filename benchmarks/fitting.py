"""Trainings without the command line, their budgets, and what a chunk costs; for the benchmarks beside this file."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.files import write_json
from sensorimotor.data.windows import Windows
from sensorimotor.policies.factory import PolicyConfig, describe, load, make_policy
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.sampling import Trace
from sensorimotor.sim.evaluation import first_observation, measure_latency
from sensorimotor.sim.task import Task
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import Outcome, train


def fit(
    config: PolicyConfig, episodes: Episodes, steps: int, run: Path, *, training: Mapping[str, Any]
) -> Policy:
    """A policy after so many updates; what an interrupted call has trained is not trained again."""
    policy = make_policy(config, episodes)
    outcome = train(
        policy,
        Windows(episodes, policy.spec),
        TrainingConfig(**{**training, "tensorboard": False, "steps": steps}),
        run,
        describe=lambda folder: describe(policy, folder),
        resume=(run / "checkpoints" / "last").exists(),
    )
    _check_finished(outcome)
    return load(run)


def affordable(
    config: PolicyConfig, episodes: Episodes, minutes: float, run: Path, *, training: Mapping[str, Any]
) -> int:
    """How many updates fit into so much processor time on one thread; measured once per run folder."""

    def plan() -> dict[str, int]:
        rate = _updates_per_second(config, episodes, {**training, "tensorboard": False})
        return {"steps": max(1, round(60 * minutes * rate))}

    return kept(run / "plan.json", plan)["steps"]


def kept(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier call put into the file, or else what is measured now, and put there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure())
    return json.loads(file.read_text())


def minutes_of(run: Path) -> float:
    """Minutes of training, interruptions left out."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(row.get("seconds") or 0.0 for row in rows) / 60


def _updates_per_second(
    config: PolicyConfig, episodes: Episodes, settings: Mapping[str, Any], *, updates: int = 200
) -> float:
    """Updates per second of processor time, after a warm-up."""
    policy = make_policy(config, episodes)
    data = Windows(episodes, policy.spec)
    with TemporaryDirectory() as folder:
        for count in (20, updates):
            counted = TrainingConfig(**{**settings, "steps": count, "log_every": count})
            outcome = train(policy, data, counted, Path(folder) / str(count), clock=time.process_time)
            _check_finished(outcome)
    return outcome.updates_per_second


def _check_finished(outcome: Outcome) -> None:
    """End the benchmark after a signal, before a half-trained policy is judged or teaches."""
    if outcome.stopped:
        raise SystemExit(f"interrupted after {outcome.steps:,} updates; call again to go on")


def cost(policy: Policy, task: Task) -> dict[str, float]:
    """Mean network evaluations per chunk and median milliseconds of a single prediction.

    Benchmarks call it for all their rows at their end, so that one machine in one state is compared.
    """
    return {
        "evaluations": _evaluations(policy, task),
        "latency_ms": float(np.median(measure_latency(policy, task))),
    }


def _evaluations(policy: Policy, task: Task) -> float:
    if not isinstance(policy, GenerativePolicy):
        return 1.0
    trace = Trace()
    policy.sample(first_observation(policy, task, worlds=task.worlds), trace=trace)
    assert trace.evaluations is not None
    return trace.evaluations.float().mean().item()
