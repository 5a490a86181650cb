"""PushT from human demonstrations at one CPU budget: every family of policies on the same network and features.

Each family trains for the same processor time on one thread, its schedule stretched to end with the budget, then plays
seeds 100000 to 100499 for 300 steps with 8 of 16 actions executed. A student's budget holds its teacher's training.
Nothing is trained or tuned on those seeds; all samplers are in the table, and the headline names the best of each family.

Usage: python benchmarks/push_t_budget.py [--data pusht_lowdim.npz] [--minutes 15] [--only flow regressor]

What an earlier call trained or evaluated is not done again, so families can be given to several processes by `--only`.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from push_t_human import RECORDINGS, summary
from record import record

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.intervals import mean_interval, wilson
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.data.windows import Windows
from sensorimotor.policies.consistency import ConsistencyConfig, ConsistencyJump
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig, Objective
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import PolicyConfig, describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, OwnSampler, SamplerConfig, Trace
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t_human import PushTHuman, read_demonstrations
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import Outcome, train

PRESET = PRESETS["flow_points"]
assert isinstance(PRESET.policy, NetworkConfig)
BASE = PRESET.policy


@dataclass(frozen=True)
class Family:
    """What is trained, and how it is sampled; None stands for a policy that does not sample.

    Attributes:
        config: of the policy.
        samplers: by the name they have in the table.
        teacher: family that is trained for the first half of the budget and then taught from.
        training: fields of the training configuration that differ from the preset's.
    """

    config: PolicyConfig
    samplers: Mapping[str, SamplerConfig | OwnSampler | None]
    teacher: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


def euler(*steps: int, temperature: float = 0.5) -> dict[str, SamplerConfig | OwnSampler | None]:
    return {
        f"Euler {n}, temperature {temperature}": FlowEuler(steps=n, temperature=temperature) for n in steps
    }


def energy(objective: Objective, **own: Any) -> EnergyConfig:
    """An energy of the preset's size and features."""
    trunk = EnergyMLPConfig(width=512, depth=3, expansion=2)
    return EnergyConfig(**BASE.shared(trunk=trunk), objective=objective, **own)


def descents(*settings: tuple[int, float]) -> dict[str, SamplerConfig | OwnSampler | None]:
    """Descents of so many steps, from starts of this standard deviation."""
    return {f"descent {n}, spread {spread}": Descent(steps=n, spread=spread) for n, spread in settings}


FAMILIES: dict[str, Family] = {
    "regressor": Family(RegressorConfig.like(BASE), {"": None}),
    # As published: actions scaled to [-1, 1], and estimates clipped to that.
    "diffusion": Family(
        DiffusionConfig(**BASE.shared(normalizer=NormalizerConfig())),
        {"DDPM 100": DDPM(steps=100), "DDIM 10": DDIM(steps=10)},
    ),
    # The same process with another target, on the scale of the other families: four standard deviations bound it.
    "diffusion, v": Family(
        DiffusionConfig(**BASE.shared(), prediction="v_prediction", clip=4.0, sampler=DDIM(clip=4.0)),
        {"DDPM 100": DDPM(steps=100, clip=4.0), "DDIM 10": DDIM(steps=10, clip=4.0)},
    ),
    "flow": Family(FlowConfig(**BASE.shared(), time="uniform"), euler(10, temperature=1.0) | euler(1, 2, 10)),
    "consistency": Family(
        ConsistencyConfig(**BASE.shared(), data_std=1.0, sampler=ConsistencyJump(clip=None)),
        {
            f"jump {n}, temperature {t}": ConsistencyJump(steps=n, clip=None, temperature=t)
            for n, t in ((1, 1.0), (1, 0.5), (3, 0.5))
        },
        teacher="flow",
    ),
    "ebt eqm": Family(energy("eqm"), descents((2, 1.0), (10, 1.0), (10, 0.5))),
    "ebt denoise": Family(energy("denoise"), descents((2, 1.0), (10, 1.0), (10, 0.5))),
    "ebt regress": Family(energy("regress", step=DescentStep()), descents((2, 1.0), (10, 1.0), (10, 0.5))),
}


def fit(name: str, family: Family, episodes: Episodes, minutes: float, runs: Path) -> Path:
    """The run folder of a family trained for so much processor time."""
    run = runs / f"{name.replace(', ', '_').replace(' ', '_')}_{minutes:g}min"
    policy = make_policy(family.config, episodes)
    data = Windows(episodes, policy.spec)
    settings = {**PRESET.training, "tensorboard": False, "log_every": 100, **family.training}
    plan = run / "plan.json"
    if not plan.exists():
        steps = round(60 * minutes * updates_per_second(make_policy(family.config, episodes), data, settings))
        run.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps({"steps": steps}))
    steps = json.loads(plan.read_text())["steps"]
    config = TrainingConfig(**{**settings, "steps": steps})
    started = (run / "checkpoints" / "last").exists()
    outcome = train(
        policy,
        data,
        config,
        run,
        describe=lambda folder: describe(policy, folder),
        resume=started,
        clock=time.process_time,
    )
    check_finished(outcome)
    return run


def check_finished(outcome: Outcome) -> None:
    """End the benchmark after a signal, before a half-trained policy is judged or teaches."""
    if outcome.stopped:
        raise SystemExit(f"interrupted after {outcome.steps:,} updates; call again to go on")


def updates_per_second(
    policy: Policy, data: Windows, settings: Mapping[str, Any], *, updates: int = 200
) -> float:
    """Updates per second of processor time, after a warm-up."""
    with TemporaryDirectory() as folder:
        for count in (20, updates):
            config = TrainingConfig(**{**settings, "steps": count, "log_every": count})
            outcome = train(policy, data, config, Path(folder) / str(count), clock=time.process_time)
            check_finished(outcome)
    return outcome.updates_per_second


def judge(
    policy: Policy, sampler: SamplerConfig | OwnSampler | None, task: PushTHuman, episodes: int
) -> dict[str, Any]:
    """Score, success, network calls and milliseconds per chunk."""
    calls = 1.0
    if isinstance(policy, GenerativePolicy) and sampler is not None:
        policy.sampler = sampler
        calls = evaluations(policy, task)
    return {**summary(evaluate(policy, task, episodes=episodes)), "evaluations": calls}


def evaluations(policy: GenerativePolicy, task: PushTHuman) -> float:
    """Mean network calls per chunk over the first observations of the worlds."""
    first = task.reset(list(range(task.worlds)))
    repeats = policy.spec.observation_steps
    observation = {
        key: torch.from_numpy(first[key])[:, None].repeat_interleave(repeats, 1)
        for key in policy.spec.observation
    }
    trace = Trace()
    policy.sample(observation, trace=trace)
    assert trace.evaluations is not None
    return trace.evaluations.float().mean().item()


def results_of(
    name: str, family: Family, episodes: Episodes, task: PushTHuman, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """A family's numbers by sampler."""
    minutes = options.minutes
    if family.teacher is not None:
        minutes /= 2
        teacher = fit(family.teacher, FAMILIES[family.teacher], episodes, minutes, options.runs)
        family = replace(family, config=replace(family.config, teacher=str(teacher)))  # pyright: ignore[reportCallIssue]
    run = fit(name, family, episodes, minutes, options.runs)
    steps = json.loads((run / "plan.json").read_text())["steps"]
    found = {}
    for label, sampler in family.samplers.items():
        kept = run / f"evaluation {label} {options.episodes}.json"
        if not kept.exists():
            kept.write_text(json.dumps(judge(load(run), sampler, task, options.episodes)))
        found[label] = {"updates": steps, **json.loads(kept.read_text())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=RECORDINGS)
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="processor minutes of training per family"
    )
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_budget"))
    parser.add_argument(
        "--only", nargs="*", choices=FAMILIES, help="train and evaluate these, record nothing"
    )
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"push_t_budget measures nothing: no demonstrations at {options.data}; give --data")
        return
    torch.set_num_threads(1)
    episodes = read_demonstrations(options.data, mirror=True)
    task = PushTHuman(worlds=min(250, options.episodes))
    chosen = options.only or list(FAMILIES)
    results = {name: results_of(name, FAMILIES[name], episodes, task, options) for name in chosen}
    if options.only:
        return
    rows = [
        [
            name,
            sampler,
            f"{found['updates']:,}",
            f"{found['evaluations']:.1f}",
            f"{found['latency_ms']:.1f}",
            interval_of_scores(found["scores"]),
            wilson(found["solved"].count("1"), len(found["solved"])).percent(),
        ]
        for name, samplers in results.items()
        for sampler, found in samplers.items()
    ]
    record(
        "push_t_budget",
        title=f"PushT from human demonstrations: {options.minutes:g} processor minutes of training for each family",
        columns=[
            "policy",
            "sampler",
            "updates",
            "network calls",
            "ms per chunk",
            "score [95 %]",
            "success [95 %]",
        ],
        rows=rows,
        headline=headline(results),
        notes=[
            f"Seeds 100000 to {100_000 + options.episodes - 1}, 300 steps, 8 of 16 actions executed.",
            "The same residual MLP and features for all; one training seed per row, intervals are over episodes only.",
            "Students: half of the budget trains the teacher. ms per chunk: median of single predictions at batch 1.",
        ],
        data=results,
    )


def interval_of_scores(scores: str) -> str:
    return mean_interval(np.array([float(score) for score in scores.split()])).decimal()


def headline(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The best row of each family by success."""
    parts = []
    for name, samplers in results.items():
        best = max(samplers.values(), key=lambda found: found["success"]["value"])
        parts.append(f"{name} {100 * best['success']['value']:.0f} % ({best['evaluations']:.0f} calls)")
    return "best sampler of each family on these seeds: " + ", ".join(parts)


if __name__ == "__main__":
    main()
