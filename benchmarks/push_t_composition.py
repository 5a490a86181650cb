"""PushT from human demonstrations: compositions of diffusion, flow and energy policies, and of policies that see less.

Every member trains for the same processor time on one thread. Parents and compositions are drawn by the same sampler with the
same steps. Weights are chosen on seeds 200000 and up, and reported on seeds 100000 and up.

Usage: python benchmarks/push_t_composition.py [--data pusht_lowdim.npz] [--minutes 15] [--only "flow + ebt denoise"]

What an earlier call has trained or played is not done again, so sets of members can be given to several processes by
`--only`. Members that benchmarks/push_t_budget.py has trained are taken from its folder.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import weighing
from fitting import kept
from push_t_budget import FAMILIES, fit_for, run_of
from push_t_human import RECORDINGS, summary
from record import record
from weighing import Study, scores, success

from sensorimotor.composition.composed import compose
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.superposed import superpose
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.factory import PolicyConfig, load
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.sampling import DDIM, FlowEuler
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t_human import SPEC, PushTHuman, PushTHumanConfig, read_demonstrations
from sensorimotor.sim.task import Step

POINTS = {"bar": (1, 2)}  # of the block's nine points, both ends of its bar: its pose follows from them

MEMBERS = ("diffusion, v", "flow", "ebt denoise", *(f"flow, {name}" for name in POINTS))
_D, _F, _E, _BAR = MEMBERS
SETS: tuple[tuple[str, ...], ...] = (
    (_D, _F),
    (_D, _E),
    (_F, _E),
    (_D, _BAR),
    (_F, _BAR),
    (_E, _BAR),
    (_D, _F, _E),
)
SAMPLERS = {
    "Euler 10, temperature 0.5": FlowEuler(steps=10, temperature=0.5),
    "DDIM 10": DDIM(steps=10, clip=4.0),
}
PUBLISHED = 3  # so many sets are also drawn by DDIM, as published
SDE = ReverseSDE(steps=100)
FOLLOWED = 250  # episodes of a row under the reverse diffusion: ten times as many calls as elsewhere


def columns(name: str) -> list[int]:
    return [2 * point + axis for point in POINTS[name] for axis in (0, 1)]


def with_points(spec: Spec) -> Spec:
    """The same with the subsets of the block's points as observations of their own."""
    extra = {
        name: Field(
            shape=(2 * len(POINTS[name]),),
            unit="px",
            names=tuple(f"keypoint_{point}_{axis}" for point in POINTS[name] for axis in "xy"),
        )
        for name in POINTS
    }
    return replace(spec, observation={**spec.observation, **extra})


def seen(observation: Mapping[str, Any]) -> dict[str, Any]:
    return {**observation, **{name: observation["environment"][..., columns(name)] for name in POINTS}}


class Subsets(PushTHuman):
    """The task, with the subsets of points among what it shows."""

    spec = with_points(SPEC)

    def reset(self, seeds: Any) -> dict[str, Any]:
        """See `PushTHuman.reset`."""
        return seen(super().reset(seeds))

    def step(self, action: Any) -> Step:
        """See `PushTHuman.step`."""
        step = super().step(action)
        return replace(step, observation=seen(step.observation))


def demonstrations(path: Path, *, mirror: bool) -> Episodes:
    found = read_demonstrations(path, mirror=mirror)
    return replace(found, spec=with_points(found.spec), observation=seen(found.observation))


def config_of(member: str) -> PolicyConfig:
    family, _, subset = member.partition(", ")
    config = FAMILIES[family if subset in POINTS else member].config
    assert isinstance(config, NetworkConfig)
    key = subset if subset in POINTS else "environment"
    return replace(config, chunk=replace(config.chunk, observation=("state", key)), points=(key,))


def train(members: list[str], episodes: Episodes, options: argparse.Namespace) -> dict[str, Policy]:
    trained = {}
    for member in members:
        run = run_of(member, options.minutes, options.runs)
        fit_for(config_of(member), episodes, options.minutes, run)
        trained[member] = load(run)
    return trained


def operators(
    members: Mapping[str, Policy], task: PushTHuman, seeds: Seeds, folder: Path
) -> dict[str, dict[str, Any]]:
    """AND, OR and the even mixture under the reverse diffusion they need, beside the parents alone under the same."""

    def play(policy: Policy) -> dict[str, Any]:
        told = seeds.telling()[:FOLLOWED]
        return summary(evaluate(policy, task, episodes=len(told), first_seed=told.start))

    made: dict[str, Any] = {name: lambda m=m: compose([m], sampler=SDE) for name, m in members.items()}
    made["even mixture"] = lambda: compose(members, sampler=SDE)
    made["OR"] = lambda: superpose(members, "or", sampler=SDE)
    made["AND"] = lambda: superpose(members, "and", sampler=SDE)
    return {
        name: kept(
            folder / f"{name}, {SDE.steps} steps, {FOLLOWED} episodes.json", lambda make=make: play(make())
        )
        for name, make in made.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=RECORDINGS)
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="processor minutes of training per member"
    )
    parser.add_argument("--selection", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_budget"))
    names = [" + ".join(members) for members in SETS]
    parser.add_argument("--only", nargs="*", choices=[*names, "operators"], help="play these, record nothing")
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"push_t_composition measures nothing: no demonstrations at {options.data}; give --data")
        return
    torch.set_num_threads(1)
    wanted = [members for members, name in zip(SETS, names, strict=True) if name in (options.only or names)]
    episodes = demonstrations(options.data, mirror=True)
    needed = sorted({m for members in wanted for m in members} | {_D, _F}, key=MEMBERS.index)
    policies = train(needed, episodes, options)
    seeds = Seeds(selection=options.selection, reporting=options.episodes)
    task = Subsets(PushTHumanConfig(), worlds=min(250, max(options.selection, options.episodes)))
    folder = options.runs.parent / "push_t_composition"
    rows, data, verdicts = [], {}, []
    for index, members in enumerate(SETS):
        if members not in wanted:
            continue
        for label, sampler in list(SAMPLERS.items())[: 2 if index < PUBLISHED else 1]:
            chosen = {name: policies[name] for name in members}
            study = Study(chosen, sampler, task, seeds, folder / label)
            prior = tuple(
                kept(
                    folder / f"prior {' + '.join(members)}.json",
                    lambda study=study: {"weights": study.prior(episodes)},
                )["weights"]
            )
            report = study.report(prior)
            rows.append(weighing.row(study, report, prior, label))
            data[f"{' + '.join(members)}, {label}"] = weighing.data_of(study, report, prior)
            verdicts.append((members, label, weighing.verdict(report), report))
            print(" | ".join(rows[-1]), flush=True)
    if options.only and "operators" not in options.only:
        return
    found = operators({m: policies[m] for m in (_D, _F)}, task, seeds, folder)
    for name, values in found.items():
        rows.append(
            [name, f"reverse SDE {SDE.steps}", "", "", "", "", success(values), "", "", "", scores(values)]
        )
    data["operators"] = found
    if options.only:
        return
    record(
        "push_t_composition",
        title="PushT from human demonstrations: compositions, weights chosen on other seeds than reported",
        columns=weighing.COLUMNS,
        rows=rows,
        headline=headline(verdicts),
        notes=[
            f"Weights: {options.selection} episodes each from seed 200000; reported: seeds 100000 to "
            f"{100_000 + options.episodes - 1}; 300 steps, 8 of 16 actions executed.",
            f"{options.minutes:g} processor minutes of training per member, one training seed; intervals are over episodes only.",
            "Gain: against the parent that was better in the selection, episode by episode. Optimism: how much the chosen "
            "weights looked better in the selection than they are, by resampling.",
            weighing.AGREEMENT,
            "`flow, bar` sees two of the block's nine points.",
            "Weights that denoise best: on the demonstrations that members were trained on, without an episode.",
            "The last rows draw by the reverse diffusion at temperature 1, parents alone too: AND and OR need it; "
            f"{FOLLOWED} episodes.",
        ],
        data=data,
    )


def headline(verdicts: list[Any]) -> str:
    """Of each sampler, how many sets beat their better parent, and which."""
    said = []
    for sampler in SAMPLERS:
        found = [(members, report) for members, label, _, report in verdicts if label == sampler]
        won = [
            f"{' + '.join(members)} {report.chosen_value.percent()}, {100 * report.gain.value:+.1f} points "
            f"[{100 * report.gain.low:+.1f}, {100 * report.gain.high:+.1f}]"
            for members, report in found
            if report.gain.low > 0
        ]
        best = [100 * report.chosen_value.value for _, report in found]
        said.append(
            f"{sampler}: {len(won)} of {len(found)} sets beat their better parent, chosen weights "
            f"{min(best):.1f} to {max(best):.1f} %" + (f" ({'; '.join(won)})" if won else "")
        )
    return "; ".join(said)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
