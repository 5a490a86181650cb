"""Do policies recover? On `push_t` a hand shifts the block by 3 to 6 cm in mid-episode, which no demonstration shows.

Five families learn from the bundled demonstrations, for equally long and with the same features: flow, diffusion with
ten DDIM steps, an energy (`ebt_points`), an energy trained by EBT-Policy's own recipe, and a plain regressor. Recovery
is success after the disturbance, within as many steps as an undisturbed episode has; the undisturbed success of the
same starts stands beside it. When, where to and how far the block is shifted follows from the episode's seed.

Usage: python benchmarks/retry.py [--minutes 10] [--episodes 200] [--runs runs/benchmark/retry]

What an interrupted call has trained and judged is not done again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fitting import affordable, cost, fit, kept
from numpy.typing import NDArray
from record import record

from sensorimotor import load_dataset
from sensorimotor.data.episodes import concatenate
from sensorimotor.data.intervals import wilson
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.data.spec import Spec
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.factory import PolicyConfig, load
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM
from sensorimotor.sim.demos import DEMONSTRATIONS
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.mirror import mirrored
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, is_free
from sensorimotor.sim.task import Step, Task

Array = NDArray[Any]

FIRST, LAST = 15, 40  # control steps between which the hand comes; the expert takes 52 (median)
NEAREST, FARTHEST = 0.03, 0.06  # m


class ShiftedPushT:
    """`push_t` with one shift per episode; satisfies `Task`.

    The hand comes at a step drawn from the seed, or as soon as the block is where it should be, so that no episode is
    over before. Success counts afterwards only. Shifts that would put the block on the pusher or out of reach are
    drawn again; where none fits, the hand waits for the next step.
    """

    def __init__(self, config: PushTConfig, *, worlds: int) -> None:
        """Build the worlds; the first call must be `reset`."""
        self.after = config.max_steps
        self.task = PushTWorlds(replace(config, max_steps=config.max_steps + LAST), worlds=worlds)
        self.spec: Spec = self.task.spec
        self.worlds, self.max_steps = worlds, self.task.max_steps
        self._generators: list[np.random.Generator] = []
        self._due, self._shifted = np.zeros(worlds, dtype=int), np.full(worlds, -1)  # (N,) control steps
        self._elapsed = 0

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Start every world anew; when and how it is disturbed follows from its seed."""
        self._generators = [np.random.default_rng([int(seed), 7]) for seed in seeds]
        self._due = np.array([g.integers(FIRST, LAST + 1) for g in self._generators])
        self._shifted[:] = -1
        self._elapsed = 0
        return self.task.reset(seeds)

    def step(self, action: Array) -> Step:
        """One control step, and the hand where it is due."""
        step = self.task.step(action)
        self._elapsed += 1
        waiting = self._shifted < 0
        observation = step.observation
        for world in np.flatnonzero(waiting & (step.success | (self._elapsed >= self._due))):
            offset = self._offset(int(world))
            if offset is not None:
                observation = self.task.displace(np.array([world]), offset[None])
                self._shifted[world] = self._elapsed
        return replace(
            step,
            observation=observation,
            reward=np.where(waiting, 0.0, step.reward),
            terminated=step.terminated & ~waiting,
            truncated=~waiting & ~step.terminated & (self._elapsed - self._shifted >= self.after),
            success=step.success & ~waiting,
            score=np.where(waiting, 0.0, step.score),
        )

    def render(self, world: int, *, size: int = 256) -> NDArray[np.uint8]:
        """Picture of one world from above."""
        return self.task.render(world, size=size)

    def close(self) -> None:
        """Stop the threads."""
        self.task.close()

    def _offset(self, world: int, tries: int = 20) -> Array | None:
        """(2,) metres that the block of a world can be shifted by."""
        block, pusher = self.task.physics.qpos[world, :3], self.task.physics.qpos[world, 3:]
        for _ in range(tries):
            distance = self._generators[world].uniform(NEAREST, FARTHEST)
            angle = self._generators[world].uniform(-np.pi, np.pi)
            offset = distance * np.array([np.cos(angle), np.sin(angle)])
            if is_free(block[None] + np.append(offset, 0.0), pusher[None]).all():
                return offset
        return None


def contenders() -> dict[str, PolicyConfig]:
    """The families, with the features and the width of `flow_points`."""
    flow, energy = PRESETS["flow_points"].policy, PRESETS["ebt_points"].policy
    assert isinstance(flow, NetworkConfig)
    assert isinstance(energy, EnergyConfig)
    # As published, with actions in [-1, 1]; and with the velocity as the target, on the scale of the others.
    diffusion = DiffusionConfig(**flow.shared(normalizer=NormalizerConfig()), sampler=DDIM(steps=10))
    velocity = DiffusionConfig(
        **flow.shared(), prediction="v_prediction", clip=4.0, sampler=DDIM(steps=10, clip=4.0)
    )
    return {
        "flow": flow,
        "diffusion": diffusion,
        "diffusion, v": velocity,
        f"EBT, {energy.objective}": energy,
        "EBT, denoise": replace(energy, objective="denoise", sampler=Descent(steps=2)),
        "EBT, regress": replace(energy, objective="regress", step=DescentStep()),
        "regressor": RegressorConfig.like(flow),
    }


def judge(policy: Policy, task: Task, episodes: int, name: str, file: Path) -> dict[str, Any]:
    """An evaluation on reporting starts, or the one that was kept."""
    return kept(file, lambda: evaluate(policy, task, episodes=episodes, name=name).to_dict())


def rate(result: dict[str, Any]) -> str:
    solved = sum(episode["success"] for episode in result["per_episode"])
    return wilson(solved, result["episodes"]).percent()


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation, its episodes as text in the order of their seeds."""
    kept = {key: result[key] for key in ("episodes", "success", "score", "coverage")}
    solved = "".join("1" if episode["success"] else "0" for episode in result["per_episode"])
    return kept | {"solved": solved}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time of each training")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/retry"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = options.runs / f"{options.minutes:g}_minutes"
    runs.mkdir(parents=True, exist_ok=True)
    demonstrations = load_dataset(DEMONSTRATIONS)
    episodes = concatenate([demonstrations, mirrored(demonstrations)])
    worlds = min(50, options.episodes)
    calm, shifted = PushTWorlds(worlds=worlds), ShiftedPushT(PushTConfig(), worlds=worlds)
    training = PRESETS["flow_points"].training
    updates, results = {}, {}
    for name, config in contenders().items():
        run = runs / name.replace(", ", "_")
        updates[name] = affordable(config, episodes, options.minutes, run, training=training)
        policy = fit(config, episodes, updates[name], run, training=training)
        results[name] = {
            what: judge(policy, task, options.episodes, name, run / f"{what}_{options.episodes}.json")
            for what, task in (("undisturbed", calm), ("shifted", shifted))
        }
    rows, data = [], {}
    for name, found in results.items():
        spent = cost(load(runs / name.replace(", ", "_")), calm)
        rows.append(
            [name, f"{updates[name]:,}", f"{spent['evaluations']:g}", f"{spent['latency_ms']:.1f}"]
            + [rate(found[what]) for what in ("undisturbed", "shifted")]
        )
        data[name] = {
            "updates": updates[name],
            **spent,
            **{what: summary(result) for what, result in found.items()},
        }
    record(
        "retry",
        title="Recovery on push_t: success after the block was shifted by 3 to 6 cm in mid-episode",
        columns=["policy", "updates", "NFE", "ms per chunk", "undisturbed [95 %]", "recovered [95 %]"],
        rows=rows,
        headline="recovered: " + "; ".join(f"{row[0]} {row[-1]}" for row in rows),
        notes=[
            f"Seeds 100000 to {100_000 + options.episodes - 1}; {options.minutes:g} minutes of processor time each, one "
            "thread, one training seed: intervals are over episodes only.",
            "300 steps from the shift on; the 200 bundled demonstrations and their mirror images hold no shift.",
            "NFE: network evaluations per chunk; those of an energy include a gradient.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
