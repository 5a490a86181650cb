"""PushT when a chunk arrives one to four control steps after its observation: what each way of executing is worth.

    python benchmarks/push_t_delay.py [--episodes 200] [--runs runs/benchmark/push_t_delay]
    python benchmarks/push_t_delay.py --select          # what beta was chosen on: starts 200000 and up

A flow policy is trained on the bundled demonstrations with the command a user types. Jerk is the mean length of the
third difference over an episode, times the cube of the control rate: of the commanded targets, and of the pusher.
Every evaluation is kept in --runs; what an earlier run has done is not done again.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fitting import kept
from record import record
from torch import Tensor

from sensorimotor.data.intervals import Interval, mean_interval, wilson
from sensorimotor.policies.asynchronous import Asynchronous
from sensorimotor.policies.delivery import SimulatedDelay
from sensorimotor.policies.factory import load
from sensorimotor.policies.guidance import Guidance
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.scheduling import (
    HardOverwrite,
    Mode,
    NaiveAsync,
    RealTimeChunking,
    Synchronous,
    TemporalMerge,
)
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t import CONTROL_HZ, PushTConfig, PushTWorlds

REPORTING, SELECTION = 100_000, 200_000
BETA = 2.0
DELAYS, REPLANNING = (1, 2, 3, 4), (4, 8)  # control steps


def modes(every: int) -> dict[str, Mode]:
    """Ways of executing, each asking for the next chunk after so many actions of the present one."""
    vjp, identity = Guidance(beta=BETA), Guidance(beta=BETA, jacobian="identity")
    return {
        "stop and wait": Synchronous(every=every),
        "naive switch": NaiveAsync(every=every),
        "hard overwrite": HardOverwrite(every=every),
        "temporal merge": TemporalMerge(every=every),
        "real-time chunking, vjp": RealTimeChunking(every=every, guidance=vjp),
        "real-time chunking, identity": RealTimeChunking(every=every, guidance=identity),
    }


def train(run: Path) -> Policy:
    """Train with the command, unless that is done already."""
    words = ["experiment=push_t", f"run={run}", "evaluation.episodes=0", "resume=true"]
    subprocess.run([sys.executable, "-m", "sensorimotor", "train", *words], check=True)
    return load(run)


class Recorded:
    """A runner that keeps what was commanded and where the pusher was, for one wave of worlds."""

    def __init__(self, runner: Asynchronous) -> None:
        self.runner = runner
        self.actions: list[Tensor] = []
        self.states: list[Tensor] = []

    def reset(self, worlds: Tensor | None = None) -> None:
        """As the runner."""
        self.runner.reset(worlds)

    def act(self, observation: Mapping[str, Tensor]) -> Tensor:
        """As the runner, kept."""
        action = self.runner.act(observation)
        self.actions.append(action.clone())
        self.states.append(observation["state"].clone())
        return action


def jerk(positions: list[Tensor], lengths: np.ndarray) -> list[float]:
    """m/s^3, one mean per world over the steps until its episode ended; worlds that ended within 3 steps are left out."""
    third = torch.stack(positions).double().diff(n=3, dim=0).norm(dim=-1).numpy() * CONTROL_HZ**3
    return [float(third[: n - 3, world].mean()) for world, n in enumerate(lengths) if n > 3]


def roll_out(policy: Policy, mode: Mode, delay: int, *, episodes: int, first_seed: int) -> dict[str, Any]:
    """One evaluation, all episodes at once."""
    kept: list[Recorded] = []

    def runner(policy: Policy, generator: torch.Generator) -> Recorded:
        kept.append(Recorded(Asynchronous(policy, mode, SimulatedDelay(delay), generator=generator)))
        return kept[0]

    task = PushTWorlds(PushTConfig(threads=1), worlds=episodes)
    try:
        result = evaluate(policy, task, episodes=episodes, first_seed=first_seed, runner=runner)
    finally:
        task.close()
    return {
        "episodes": episodes,
        "first_seed": first_seed,
        "solved": "".join("1" if ok else "0" for ok in result.success),
        "score": float(result.reward.mean()),
        "solved_at": result.solved_at.tolist(),
        "jerk_commanded": jerk(kept[0].actions, result.length),
        "jerk_pusher": jerk(kept[0].states, result.length),
        "held": kept[0].runner.held / kept[0].runner.steps,
    }


def file_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '_').replace(',', '')}.json"


def row(delay: int, every: int, mode: str, found: Mapping[str, Any]) -> list[str]:
    solved = [at for at in found["solved_at"] if at]
    return [
        str(delay),
        str(every),
        mode,
        success(found).percent(),
        f"{np.mean(solved):.0f}" if solved else "",
        *(mean_interval(found[key]).decimal(1) for key in ("jerk_commanded", "jerk_pusher")),
        f"{100 * found['held']:.0f} %",
    ]


def success(found: Mapping[str, Any]) -> Interval:
    return wilson(found["solved"].count("1"), found["episodes"])


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an evaluation without its per-episode lists, but for what was solved."""
    return {
        "success": vars(success(found)),
        "score": found["score"],
        "jerk_commanded": vars(mean_interval(found["jerk_commanded"])),
        "jerk_pusher": vars(mean_interval(found["jerk_pusher"])),
        "held": found["held"],
        "solved": found["solved"],
    }


def select(policy: Policy, runs: Path, episodes: int) -> None:
    """Success and jerk for several beta, on starts kept for choosing."""
    for every in REPLANNING:
        for jacobian in ("vjp", "identity"):
            for beta in (1.0, 2.0, 5.0, 10.0):
                mode = RealTimeChunking(every=every, guidance=Guidance(beta=beta, jacobian=jacobian))
                found = kept(
                    file_of(runs / "selection", f"every {every} {jacobian} beta {beta:g}"),
                    partial(roll_out, policy, mode, 3, episodes=episodes, first_seed=SELECTION),
                )
                print(row(3, every, f"{jacobian}, beta {beta:g}", found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_delay"))
    parser.add_argument("--select", action="store_true", help="only show what beta was chosen on")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    policy = train(chosen.runs / "flow")
    if chosen.select:
        select(policy, chosen.runs, chosen.episodes // 2)
        return
    # No delay comes first: plain receding-horizon execution.
    wanted = [(0, every, "stop and wait") for every in REPLANNING]
    wanted += [(delay, every, mode) for delay in DELAYS for every in REPLANNING for mode in modes(every)]
    results = {
        (delay, every, mode): kept(
            file_of(chosen.runs / f"evaluations_{chosen.episodes}", f"delay {delay} every {every} {mode}"),
            partial(
                roll_out, policy, modes(every)[mode], delay, episodes=chosen.episodes, first_seed=REPORTING
            ),
        )
        for delay, every, mode in wanted
    }
    most, least = max(DELAYS), min(REPLANNING)
    shown = (
        f"{mode} {100 * success(results[most, least, mode]).value:.0f} % and "
        f"{np.mean(results[most, least, mode]['jerk_commanded']):.1f} m/s³"
        for mode in modes(least)
    )
    record(
        "push_t_delay",
        title="PushT with chunks that arrive late: success and jerk",
        columns=[
            "delay, steps",
            "asked for after",
            "execution",
            "success [95 %]",
            "steps to success",
            "jerk of commands, m/s³ [95 %]",
            "jerk of the pusher, m/s³ [95 %]",
            "steps held",
        ],
        rows=[row(*key, found) for key, found in results.items()],
        headline=f"delay of {most} steps, next chunk asked for after {least}: {'; '.join(shown)}",
        notes=[
            f"Seeds {REPORTING} to {REPORTING + chosen.episodes - 1}, 300 steps of 0.1 s; chunks of 16 actions, the next "
            "one asked for after 4 or 8 of them; delay 0 is plain receding-horizon execution.",
            "One training seed: intervals are over episodes only. 5,000 updates on the bundled demonstrations.",
            f"beta {BETA:g} with exponential weights, chosen on seeds {SELECTION} and up; temporal merge is 0.3 old "
            "and 0.7 new.",
            "Jerk: third difference per control step times the cube of the control rate, mean per episode.",
        ],
        data=[
            {"delay": k[0], "every": k[1], "execution": k[2], **summary(found)}
            for k, found in results.items()
        ],
    )


if __name__ == "__main__":
    main()
