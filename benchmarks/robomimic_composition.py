"""robomimic's Lift and Can from few demonstrations: a diffusion and a flow policy, and their compositions.

With the 200 demonstrations of benchmarks/robomimic_tasks.py both parents solve nearly every start, and there is nothing to
gain; here they learn from the first few of the same recordings. Parents and compositions are drawn by DDIM in 10
steps. Weights are chosen on seeds 200000 and up, and reported on seeds 100000 and up.

Usage: python benchmarks/robomimic_composition.py [--tasks lift can] [--episodes 500] [--runs runs/benchmark/robomimic]

What an earlier call has recorded, trained or played is not done again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import weighing
from fitting import fit
from record import record
from robomimic_tasks import POLICIES, TASKS, demonstrate
from weighing import Study

from sensorimotor.composition.seeds import Seeds
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.formats import load_dataset
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import DDIM
from sensorimotor.sim.manipulation.recordings import demonstrations
from sensorimotor.sim.tasks import make_task

FEW = {
    "lift": 3,
    "can": 10,
}  # demonstrations; chosen so that parents succeed about half of the time on selection seeds
SAMPLER = DDIM(steps=10)
PARTS = 5  # of the grid, as on real robots in the paper


def recorded(task: str, options: argparse.Namespace) -> Episodes:
    assert task in TASKS
    return demonstrations(load_dataset(demonstrate(task, options.runs, options.demonstrations)), task)


def study(task: str, options: argparse.Namespace) -> Study:
    """Both parents, trained on the first few demonstrations."""
    few = recorded(task, options).select(range(FEW[task]))
    members = {
        name: fit(
            PRESETS[preset].policy,
            few,
            options.steps,
            options.runs / f"{task}_{name}_{options.steps}_of_{FEW[task]}",
            training={**PRESETS[preset].training, "log_every": 500},
        )
        for name, preset in POLICIES.items()
    }
    seeds = Seeds(selection=options.selection, reporting=options.episodes)
    worlds = make_task(task, worlds=min(25, options.episodes))
    return Study(members, SAMPLER, worlds, seeds, options.runs / f"{task} of {FEW[task]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["lift", "can"], choices=list(FEW))
    parser.add_argument(
        "--demonstrations", type=int, default=200, help="of which the first few are learned from"
    )
    parser.add_argument("--selection", type=int, default=150)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/robomimic"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, data, said = [], {}, []
    for task in options.tasks:
        made = study(task, options)
        prior = made.prior(recorded(task, options).select(range(100, options.demonstrations)))
        report = made.report(prior, parts=PARTS)
        rows.append([task, str(FEW[task]), *weighing.row(made, report, prior, "DDIM 10")])
        data[task] = weighing.data_of(made, report, prior)
        said.append(f"{task}: {weighing.verdict(report)} ({report.chosen_value.percent()})")
        made.task.close()
        print(" | ".join(rows[-1]), flush=True)
    if options.tasks != list(FEW):
        return
    record(
        "robomimic_composition",
        title="robomimic's Lift and Can from few demonstrations: flow and diffusion composed",
        columns=["task", "demonstrations", *weighing.COLUMNS],
        rows=rows,
        headline="; ".join(said),
        notes=[
            f"Weights: {options.selection} episodes each from seed 200000; reported: seeds 100000 to "
            f"{100_000 + options.episodes - 1}; 400 steps, 8 of 16 actions executed.",
            f"{options.steps:,} updates of 256 windows, one training seed; intervals are over episodes only.",
            "The demonstrator is a script; weights that denoise best are found on demonstrations no member has seen.",
            weighing.AGREEMENT,
        ],
        data=data,
    )


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
