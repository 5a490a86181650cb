"""robomimic's tasks from scripted demonstrations to reported episodes: flow, diffusion and the plain regressor.

For each task: record 200 demonstrations of the expert, train each policy with the command a user types, on one core,
and evaluate starts 100000 and up, 400 steps. Nothing here is chosen on those starts.

Usage: python benchmarks/robomimic_tasks.py [--tasks lift can] [--episodes 100] [--runs runs/benchmark/robomimic]

What an earlier call has done is not done again: recordings, trainings and evaluations are kept in the run folder.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import record

from sensorimotor.data.intervals import wilson
from sensorimotor.policies.factory import load, make_policy
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.tasks import make_task

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
    from sensorimotor.data.formats import load_dataset
    from sensorimotor.data.windows import Windows
    from sensorimotor.policies.factory import describe
    from sensorimotor.sim.manipulation.recordings import demonstrations
    from sensorimotor.training.config import TrainingConfig
    from sensorimotor.training.loop import train as fit

    preset = PRESETS["flow_arm"]
    assert isinstance(preset.policy, NetworkConfig)
    assert task in ("lift", "can", "square")
    episodes = demonstrations(load_dataset(data), task)
    policy = make_policy(RegressorConfig.like(preset.policy), episodes)
    config = TrainingConfig(**{**preset.training, "steps": steps, "tensorboard": False})
    fit(
        policy,
        Windows(episodes, policy.spec),
        config,
        run,
        describe=lambda folder: describe(policy, folder),
        resume=(run / "checkpoints" / "last").exists(),
    )


def minutes_of(run: Path) -> float:
    """Minutes of training, interruptions left out."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(row.get("seconds") or 0.0 for row in rows) / 60


def judge(policy: Policy, task: str, name: str, episodes: int, kept: Path) -> dict[str, Any]:
    """One evaluation; what was evaluated before is read back."""
    if kept.is_file():
        return json.loads(kept.read_text())
    worlds = make_task(task, worlds=min(25, episodes))
    result = evaluate(policy, worlds, episodes=episodes, name=name)
    worlds.close()
    result.save(kept)
    return result.to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["lift", "can"], choices=["lift", "can", "square"])
    parser.add_argument("--demonstrations", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=int(PRESETS["flow_arm"].training["steps"]))
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/robomimic"))
    options = parser.parse_args()
    rows, data = [], {}
    for task in options.tasks:
        recording = demonstrate(task, options.runs, options.demonstrations)
        for name in (*POLICIES, "regressor"):
            run = options.runs / f"{task}_{name}_{options.steps}"
            if name == "regressor":
                fit_regressor(task, run, recording, options.steps)
            else:
                train(task, POLICIES[name], run, recording, f"training.steps={options.steps}")
            found = judge(load(run), task, name, options.episodes, run / f"reported_{options.episodes}.json")
            solved = [row["success"] for row in found["per_episode"]]
            rate = wilson(sum(solved), len(solved))
            minutes, latency = minutes_of(run), found["latency_ms"]["median"]
            rows.append([task, name, f"{minutes:.1f}", str(len(solved)), rate.percent(), f"{latency:.1f}"])
            data[f"{task} {name}"] = {
                "minutes": minutes,
                "updates": options.steps,
                "success": vars(rate),
                "latency_ms": latency,
                "solved": "".join("1" if ok else "0" for ok in solved),
            }
    record(
        "robomimic_tasks",
        title="robomimic's tasks from 200 scripted demonstrations: success on unseen starts",
        columns=["task", "policy", "training, min", "episodes", "success [95 %]", "ms per chunk"],
        rows=rows,
        headline="; ".join(f"{row[0]} {row[1]} {row[4]}" for row in rows),
        notes=[
            f"{options.demonstrations} demonstrations of the waypoint expert per task, {options.steps:,} updates of "
            "256 windows on one core; low-dimensional observations, 400 steps, 8 of 16 actions executed.",
            "The demonstrator is a script: the numbers say nothing about robomimic's human demonstrations.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
