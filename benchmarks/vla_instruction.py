"""Does the tiny vision-language-action policy do what it is told? PushT with two goals, named by the instruction.

Trains with the command a user types, then runs the reported starts three times: with the right instruction, with the
other goal's, and with words that name neither. The goal an episode ends at is the one the block is nearer to when the
episode is over. Nothing here is chosen on those starts.

Usage: python benchmarks/vla_instruction.py [--data demos/push_t_language.hdf5] [--episodes 200]
    [--runs runs/benchmark/vla_instruction] [-- training.steps=...]
       python benchmarks/vla_instruction.py --select       # what the number of flow steps was chosen on
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fitting import minutes_of
from numpy.typing import NDArray
from record import record

from sensorimotor.data.intervals import wilson
from sensorimotor.policies.execution import RecedingHorizon
from sensorimotor.policies.factory import load
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.sim.evaluation import for_policies
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds
from sensorimotor.sim.push_t_goals import INSTRUCTIONS, goal_poses

TASK = PushTConfig(goals="two", images=True, image_size=32)
REPORTING, SELECTION = 100_000, 200_000
Words = Callable[[list[str]], list[str]]
TOLD: dict[str, Words] = {
    "right instruction": lambda texts: texts,
    "the other goal's": lambda texts: [INSTRUCTIONS[1 - INSTRUCTIONS.index(text)] for text in texts],
    "no goal named": lambda texts: ["push the T" for _ in texts],
}


def train(run: Path, data: Path, words: list[str]) -> float:
    """Minutes that `sensorimotor train` spent; what an earlier run has done is not done again."""
    command = ["experiment=push_t_language", f"data.path={data}", f"run={run}", "evaluation.episodes=0"]
    subprocess.run(
        [sys.executable, "-m", "sensorimotor", "train", *command, "resume=true", *words], check=True
    )
    return minutes_of(run)


def run_episodes(
    policy: Policy, seeds: list[int], words: Words
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) whether each episode ended nearer to its own goal, and whether it was a success."""
    worlds = PushTWorlds(TASK, worlds=len(seeds))
    try:
        observation = worlds.reset(seeds)
        runner = RecedingHorizon(policy, generator=torch.Generator().manual_seed(0))
        alive, success = np.ones(len(seeds), dtype=bool), np.zeros(len(seeds), dtype=bool)
        final = worlds.physics.qpos[:, :2].copy()
        for _ in range(worlds.max_steps):
            shown = {key: for_policies(observation[key]) for key in policy.spec.observation}
            told = shown["instruction"]
            assert isinstance(told, list)
            step = worlds.step(runner.act({**shown, "instruction": words(told)}).numpy())
            observation = step.observation
            final[alive] = worlds.physics.qpos[alive, :2]
            success |= alive & step.success
            alive &= ~step.terminated
            if not alive.any():
                break
        away = np.linalg.norm(final[:, None] - goal_poses("two")[None, :, :2], axis=2)
        return away.argmin(axis=1) == worlds.chosen, success
    finally:
        worlds.close()


def select(policy: Policy, seeds: list[int]) -> None:
    """Success by flow steps, on starts kept for choosing."""
    assert isinstance(policy, GenerativePolicy)
    usual = policy.sampler
    assert isinstance(usual, FlowEuler)
    for steps in (1, 2, 4, 10):
        policy.sampler = replace(usual, steps=steps)
        named, success = run_episodes(policy, seeds, TOLD["right instruction"])
        near, solved = (wilson(int(found.sum()), len(seeds)).percent() for found in (named, success))
        print(f"{steps:2} flow steps: ends at the named goal {near}, covers it by 90 % {solved}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("demos/push_t_language.hdf5"))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/vla_instruction"))
    parser.add_argument("--select", action="store_true", help="only show what the flow steps were chosen on")
    parser.add_argument("words", nargs="*", help="overrides of the training command")
    options = parser.parse_args()
    minutes = train(options.runs, options.data, options.words)
    policy = load(options.runs)
    if options.select:
        select(policy, list(range(SELECTION, SELECTION + options.episodes // 2)))
        return
    seeds = list(range(REPORTING, REPORTING + options.episodes))
    rows, data = [], {}
    for name, words in TOLD.items():
        named, success = run_episodes(policy, seeds, words)
        near, solved = wilson(int(named.sum()), len(seeds)), wilson(int(success.sum()), len(seeds))
        rows.append([name, near.percent(), solved.percent()])
        data[name] = {"named_goal": vars(near), "success": vars(solved)}
    parameters = sum(p.numel() for p in policy.parameters())
    record(
        "vla_instruction",
        title=f"PushT with two goals: {parameters:,} parameters, {minutes:.0f} min of training on one core",
        columns=["told", "ends at the goal of the task [95 %]", "covers it by 90 % [95 %]"],
        rows=rows,
        headline=f"named goal {rows[0][1]}, success {rows[0][2]}",
        notes=[
            f"Seeds {seeds[0]} to {seeds[-1]}; one training seed, intervals are over episodes only.",
            "The policy reads the picture (32 px), the instruction, the pusher's position and the block's corners.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
