"""PushT from human demonstrations at one CPU budget: every family of policies on the same network and features.

Each family trains for the same processor time on one thread, its schedule stretched to end with the budget, then plays
seeds 100000 to 100499 for 300 steps with 8 of 16 actions executed. A student's budget holds its teacher's training.
Nothing is trained or tuned on those seeds: all samplers are in the table, and the headline has the presets' and
defaults' own, by how many network calls they make.

Usage: python benchmarks/push_t_budget.py [--data pusht_lowdim.npz] [--minutes 15] [--only flow regressor]

What an earlier call trained or evaluated is not done again, so families can be given to several processes by `--only`.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fitting import affordable, cost, fit, kept
from push_t_human import RECORDINGS, summary
from record import record

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.intervals import mean_interval, wilson
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.policies.consistency import ConsistencyConfig, ConsistencyJump
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig, Objective
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import PolicyConfig, load
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, OwnSampler, SamplerConfig
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t_human import PushTHuman, read_demonstrations

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
    """

    config: PolicyConfig
    samplers: Mapping[str, SamplerConfig | OwnSampler | None]
    teacher: str | None = None


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

USUAL = {
    "1 call": ("", "Euler 1, temperature 0.5", "jump 1, temperature 0.5"),
    "2 calls": ("Euler 2, temperature 0.5", "descent 2, spread 1.0"),
    "10 calls": ("DDIM 10", "Euler 10, temperature 0.5", "descent 10, spread 1.0"),
    "100 calls": ("DDPM 100",),
}


def folder(name: str, options: argparse.Namespace) -> Path:
    """The run folder of a family; of a student, which has half of the budget, too."""
    minutes = options.minutes / 2 if FAMILIES[name].teacher else options.minutes
    return run_of(name, minutes, options.runs)


def run_of(name: str, minutes: float, runs: Path) -> Path:
    return runs / f"{name.replace(', ', '_').replace(' ', '_')}_{minutes:g}min"


def configured(run: Path, sampler: SamplerConfig | OwnSampler | None) -> Policy:
    """The trained policy, drawing as a row of the table says."""
    policy = load(run)
    if isinstance(policy, GenerativePolicy) and sampler is not None:
        policy.sampler = sampler
    return policy


def train(name: str, episodes: Episodes, options: argparse.Namespace) -> int:
    """Train a family, its teacher before it; the number of updates."""
    config, teacher = FAMILIES[name].config, FAMILIES[name].teacher
    minutes = options.minutes
    if teacher is not None:
        minutes /= 2
        taught_by = run_of(teacher, minutes, options.runs)
        fit_for(FAMILIES[teacher].config, episodes, minutes, taught_by)
        config = replace(config, teacher=str(taught_by))  # pyright: ignore[reportCallIssue]
    return fit_for(config, episodes, minutes, run_of(name, minutes, options.runs))


def fit_for(config: PolicyConfig, episodes: Episodes, minutes: float, run: Path) -> int:
    steps = affordable(config, episodes, minutes, run, training=PRESET.training)
    fit(config, episodes, steps, run, training={**PRESET.training, "log_every": 100})
    return steps


def judge(name: str, task: PushTHuman, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Score and success of a family by sampler."""
    run, episodes = folder(name, options), options.episodes

    def play(sampler: SamplerConfig | OwnSampler | None) -> dict[str, Any]:
        return summary(evaluate(configured(run, sampler), task, episodes=episodes))

    return {
        label: kept(run / f"evaluation {label} {episodes}.json", partial(play, sampler))
        for label, sampler in FAMILIES[name].samplers.items()
    }


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
    updates, results = {}, {}
    for name in chosen:
        updates[name] = train(name, episodes, options)
        results[name] = judge(name, task, options)
    if options.only:
        return
    for name, family in FAMILIES.items():
        for label, sampler in family.samplers.items():
            spent = cost(configured(folder(name, options), sampler), task)
            results[name][label] |= {"updates": updates[name], **spent}
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
            "Students: half of the budget trains the teacher. ms per chunk: median of single predictions at batch 1, all rows in one pass.",
        ],
        data=results,
    )


def interval_of_scores(scores: str) -> str:
    return mean_interval(np.array([float(score) for score in scores.split()]), within=(0, 1)).decimal()


def headline(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Success by network calls, of the samplers that presets and defaults have; none is picked by its result."""
    groups = []
    for calls, wanted in USUAL.items():
        found = [
            f"{name} {100 * result['success']['value']:.0f} %"
            for name, samplers in results.items()
            for sampler, result in samplers.items()
            if sampler in wanted
        ]
        groups.append(f"{calls}: {', '.join(found)}")
    return "; ".join(groups)


if __name__ == "__main__":
    main()
