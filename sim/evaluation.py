"""Roll a policy out on a task and say how good it is, with intervals.

Success and score are reported per episode and seed, so that two evaluations can be compared episode by episode.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.errors import ConfigError
from ..data.files import write_json
from ..data.intervals import Interval, mean_interval, wilson
from ..data.spec import check_connection
from ..policies.execution import RecedingHorizon, Runner
from ..policies.policy import Policy
from .task import Task
from .video import Recorder

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What happened in M episodes.

    Attributes:
        task: class of its worlds; three tasks of robosuite share one.
        policy: name of the policy.
        seeds: (M,) seed of each episode.
        success: (M,) bool.
        reward: (M,) best reward of the episode; for PushT the published score, coverage / 0.95 clipped to 1.
        coverage: (M,) best value of the task's own progress measure.
        length: (M,) control steps until the task ended the episode.
        solved_at: (M,) control step of the first success, 0 where there was none.
        latency_ms: milliseconds of single predictions at batch size 1, encoding included.
        seconds: wall time of the whole evaluation.
        videos: files written, one per recorded episode.
    """

    task: str
    policy: str
    seeds: Array
    success: Array
    reward: Array
    coverage: Array
    length: Array
    solved_at: Array
    latency_ms: Array
    seconds: float
    videos: tuple[str, ...] = ()

    @property
    def success_rate(self) -> Interval:
        """Share of successful episodes with Wilson's interval."""
        return wilson(int(self.success.sum()), len(self.success))

    @property
    def mean_reward(self) -> Interval:
        """Mean best reward with Student's interval."""
        return mean_interval(self.reward, within=(0.0, 1.0))

    def rate_above(self, coverage: float) -> Interval:
        """Share of episodes whose best coverage reached a threshold."""
        return wilson(int((self.coverage >= coverage).sum()), len(self.coverage))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: a summary first, then every episode."""
        latency = np.percentile(self.latency_ms, [50, 95]) if len(self.latency_ms) else [None, None]
        return {
            "task": self.task,
            "policy": self.policy,
            "episodes": len(self.seeds),
            "success": vars(self.success_rate),
            "score": vars(self.mean_reward),
            "coverage": vars(mean_interval(self.coverage, within=(0.0, 1.0))),
            "coverage_at_least_0.95": vars(self.rate_above(0.95)),
            "latency_ms": {"median": latency[0], "p95": latency[1], "all": self.latency_ms.round(3).tolist()},
            "seconds": round(self.seconds, 3),
            "videos": list(self.videos),
            "per_episode": [
                {
                    "seed": int(s),
                    "success": bool(ok),
                    "score": float(r),
                    "coverage": float(c),
                    "length": int(n),
                    "solved_at": int(at) or None,
                }
                for s, ok, r, c, n, at in zip(
                    self.seeds,
                    self.success,
                    self.reward,
                    self.coverage,
                    self.length,
                    self.solved_at,
                    strict=True,
                )
            ],
        }

    def save(self, path: Path | str) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        write_json(Path(path), self.to_dict())


def evaluate(
    policy: Policy,
    task: Task,
    *,
    episodes: int = 50,
    first_seed: int = 100_000,
    seed: int = 0,
    runner: Callable[[Policy, torch.Generator], Runner] | None = None,
    videos: int = 0,
    folder: Path | str | None = None,
    name: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `episodes` episodes, as many at a time as the task has worlds.

    Args:
        policy: any policy; its spec must fit the task's.
        task: worlds stepped together.
        episodes: number of episodes; their seeds are first_seed, first_seed + 1, ...
        first_seed: 100000 and up are for reporting, 200000 and up for selection; never use one for the other.
        seed: seeds the policy's own randomness.
        runner: how chunks are executed; receding horizon if not given.
        videos: how many of the first episodes to record.
        folder: where videos go.
        name: the policy's name in the report; its class name if not given.
        clock: seconds, for latency and duration.
        progress: called with (episodes done, episodes).

    Raises:
        SpecError: if policy and task disagree.
        ConfigError: for impossible arguments.
    """
    if episodes < 1:
        raise ConfigError(f"episodes must be at least 1, got {episodes}")
    if videos and folder is None:
        raise ConfigError(f"{videos} videos need a folder; pass folder=...")
    check_connection(policy.spec, task.spec)
    began = clock()
    make_runner = runner or (lambda p, g: RecedingHorizon(p, generator=g))
    running = make_runner(policy, torch.Generator().manual_seed(seed))
    waves: list[_Wave] = []
    for start in range(0, episodes, task.worlds):
        count = min(task.worlds, episodes - start)
        seeds = np.arange(first_seed + start, first_seed + start + task.worlds)
        recorder = Recorder(Path(folder), worlds=min(count, max(0, videos - start))) if folder else None
        waves.append(_run_wave(task, running, seeds, count, recorder))
        if progress:
            progress(start + count, episodes)
    latency = measure_latency(policy, task, clock=clock)
    return Evaluation(
        task=type(task).__name__,
        policy=name or type(policy).__name__,
        seeds=np.concatenate([w.seeds for w in waves]),
        success=np.concatenate([w.success for w in waves]),
        reward=np.concatenate([w.reward for w in waves]),
        coverage=np.concatenate([w.coverage for w in waves]),
        length=np.concatenate([w.length for w in waves]),
        solved_at=np.concatenate([w.solved_at for w in waves]),
        latency_ms=latency,
        seconds=clock() - began,
        videos=tuple(path for w in waves for path in w.videos),
    )


@dataclass
class _Wave:
    seeds: Array
    success: Array
    reward: Array
    coverage: Array
    length: Array
    solved_at: Array
    videos: list[str] = field(default_factory=list)


def _run_wave(task: Task, runner: Runner, seeds: Array, count: int, recorder: Recorder | None) -> _Wave:
    """One wave of episodes; worlds beyond `count` run along and are dropped."""
    n = task.worlds
    observation = task.reset(seeds.tolist())
    runner.reset()
    success, alive = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    reward, coverage = np.zeros(n), np.zeros(n)
    length, solved_at = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for _ in range(task.max_steps):
        action = runner.act({key: for_policies(value) for key, value in observation.items()})
        step = task.step(action.numpy())
        observation = step.observation
        reward[alive] = np.maximum(reward, step.reward)[alive]
        coverage[alive] = np.maximum(coverage, step.score)[alive]
        length[alive] += 1
        first = alive & step.success & ~success
        solved_at[first] = length[first]
        success |= first
        if recorder:
            recorder.add(task, length, coverage, success, alive)
        alive &= ~(step.terminated | step.truncated)
        if not alive[:count].any():
            break
    paths = recorder.close(seeds) if recorder else []
    keep = slice(0, count)
    return _Wave(
        seeds[keep], success[keep], reward[keep], coverage[keep], length[keep], solved_at[keep], paths
    )


def measure_latency(
    policy: Policy, task: Task, *, calls: int = 30, clock: Callable[[], float] = time.perf_counter
) -> Array:
    """Milliseconds of single-sample predictions at batch size 1; warm-up calls are left out."""
    observation = first_observation(policy, task, worlds=1)
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(calls + 3):
        began = clock()
        policy.sample(observation, generator=generator)
        times.append(1e3 * (clock() - began))
    return np.array(times[3:])


def first_observation(policy: Policy, task: Task, *, worlds: int) -> dict[str, Any]:
    """What a policy sees of the first worlds at the start of an episode, its whole history the same."""
    first = task.reset(list(range(task.worlds)))
    observation: dict[str, Any] = {key: for_policies(first[key][:worlds]) for key in policy.spec.observation}
    steps = policy.spec.observation_steps
    return {
        key: value.unsqueeze(1).repeat_interleave(steps, 1) if isinstance(value, Tensor) else value
        for key, value in observation.items()
    }


def for_policies(value: Array) -> Tensor | list[str]:
    """A task's array as policies take it: a tensor, or of text a list of strings."""
    return value.tolist() if value.dtype.kind == "U" else torch.from_numpy(value)


def compare(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row per policy for tables: name, success and score with intervals, median latency."""
    return [
        {
            "policy": e.policy,
            "episodes": len(e.seeds),
            "success": e.success_rate,
            "score": e.mean_reward,
            "latency_ms": float(np.median(e.latency_ms)) if len(e.latency_ms) else None,
        }
        for e in evaluations
    ]
