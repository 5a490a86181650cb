"""robomimic's tasks from scripted demonstrations to reported episodes: flow, diffusion and the plain regressor.

For each task: record 200 demonstrations of the expert and count the starts it needed for that. Then train each policy
with the command a user types, on one core, and evaluate starts 100000 and up, 400 steps. Nothing here is chosen on those
starts.

Usage: python benchmarks/robomimic_tasks.py [--tasks lift can] [--episodes 100] [--runs runs/benchmark/robomimic]

What an earlier call has done is not done again: recordings, trainings and evaluations are kept in the run folder.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from fitting import cost, fit, kept, minutes_of
from record import record

from sensorimotor.data.formats import load_dataset
from sensorimotor.data.intervals import wilson
from sensorimotor.policies.factory import load
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.manipulation.recordings import demonstrations
from sensorimotor.sim.task import Task
from sensorimotor.sim.tasks import make_task

TASKS = ("lift", "can", "square")
POLICIES = {"flow": "flow_arm", "diffusion": "diffusion_arm"}


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "sensorimotor", *words], check=True)


def demonstrate(task: str, runs: Path, episodes: int) -> Path:
    """The recording; made once."""
    path = runs / f"{task}_{episodes}.hdf5"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        command("demos", f"task={task}", f"out={path}", f"episodes={episodes}")
    return path


def starts_of(recording: Path) -> tuple[int, int]:
    """How many starts the expert solved, of how many; those it did not are left out of the recording."""
    seeds = load_dataset(recording).metadata["seeds"]
    return len(seeds), max(seeds) - min(seeds) + 1


def train(task: str, preset: str, run: Path, data: Path, *overrides: str) -> None:
    command(
        "train",
        f"experiment={task}",
        f"policy={preset}",
        f"data.path={data}",
        f"run={run}",
        "evaluation.episodes=0",
        "resume=true",
        *overrides,
    )


def fit_regressor(task: str, run: Path, data: Path, steps: int) -> None:
    """The plain regressor on the flow's own network and windows, with as many updates."""
    preset = PRESETS["flow_arm"]
    assert isinstance(preset.policy, NetworkConfig)
    assert task in TASKS
    episodes = demonstrations(load_dataset(data), task)
    fit(RegressorConfig.like(preset.policy), episodes, steps, run, training=preset.training)


def judge(policy: Policy, task: Task, name: str, episodes: int, file: Path) -> list[bool]:
    """Which reported starts were solved; what was evaluated before is read back."""
    found = kept(file, lambda: evaluate(policy, task, episodes=episodes, name=name).to_dict())
    return [row["success"] for row in found["per_episode"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["lift", "can"], choices=TASKS)
    parser.add_argument("--demonstrations", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=int(PRESETS["flow_arm"].training["steps"]))
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/robomimic"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, data = [], {}
    recordings = {task: demonstrate(task, options.runs, options.demonstrations) for task in TASKS}
    for task, recording in recordings.items():
        kept_starts, tried = starts_of(recording)
        rate = wilson(kept_starts, tried)
        rows.append([task, "expert", "", str(tried), rate.percent(), ""])
        data[f"{task} expert"] = {"success": vars(rate)}
    runs = {
        (task, name): options.runs / f"{task}_{name}_{options.steps}"
        for task in options.tasks
        for name in (*POLICIES, "regressor")
    }
    for (task, name), run in runs.items():
        if name == "regressor":
            fit_regressor(task, run, recordings[task], options.steps)
        else:
            train(task, POLICIES[name], run, recordings[task], f"training.steps={options.steps}")
    worlds = {task: make_task(task, worlds=min(25, options.episodes)) for task in options.tasks}
    solved = {
        (task, name): judge(
            load(run), worlds[task], name, options.episodes, run / f"reported_{options.episodes}.json"
        )
        for (task, name), run in runs.items()
    }
    for (task, name), run in runs.items():
        found, minutes, spent = solved[task, name], minutes_of(run), cost(load(run), worlds[task])
        rate = wilson(sum(found), len(found))
        latency = f"{spent['latency_ms']:.1f}"
        rows.append([task, name, f"{minutes:.1f}", str(len(found)), rate.percent(), latency])
        data[f"{task} {name}"] = {
            "minutes": minutes,
            "updates": options.steps,
            "success": vars(rate),
            **spent,
            "solved": "".join("1" if ok else "0" for ok in found),
        }
    for world in worlds.values():
        world.close()
    record(
        "robomimic_tasks",
        title="robomimic's tasks from 200 scripted demonstrations: success on unseen starts",
        columns=["task", "policy", "training, min", "episodes", "success [95 %]", "ms per chunk"],
        rows=rows,
        headline="; ".join(f"{row[0]} {row[1]} {row[4]}" for row in rows if row[1] != "expert"),
        notes=[
            f"{options.demonstrations} demonstrations of the waypoint expert per task, {options.steps:,} updates of "
            "256 windows on one core; low-dimensional observations, 400 steps, 8 of 16 actions executed.",
            "Expert: starts 0 and up until enough were solved; those it did not solve are not recorded.",
            "The demonstrator is a script: the numbers say nothing about robomimic's human demonstrations.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
