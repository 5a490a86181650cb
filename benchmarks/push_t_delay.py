"""PushT when a chunk arrives one to four control steps after its observation: what each way of executing is worth.

    python benchmarks/push_t_delay.py [--episodes 200] [--runs runs/benchmark/push_t_delay]
    python benchmarks/push_t_delay.py --select          # what beta was chosen on: starts 200000 and up

Two policies are trained on the bundled demonstrations with the command a user types. Jerk is the mean length of the
third difference over an episode, times the cube of the control rate: of the commanded targets, and of the pusher.
Every evaluation is kept in --runs; what an earlier run has done is not done again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
BETA = 10.0
# The diffusion policy has the network and the features of the flow preset.
_SAME_NETWORK = """policy=diffusion policy.trunk=mlp policy.trunk.width=512 policy.trunk.depth=3
    policy.trunk.expansion=2 policy.octaves=4 policy.relative=state policy.points=[environment]
    policy.history_dropout=0.5 policy.observation_noise=0.008 policy.point_noise=0.014 policy.mask_loss=true
    training.betas=[0.9,0.99] training.weight_decay=1e-2 training.warmup_steps=300 training.minimum_ratio=1e-3
    training.precision=bf16 training.ema.max_decay=0.999 training.threads=1"""
POLICIES: Mapping[str, tuple[str, ...]] = {"flow": (), "diffusion": tuple(_SAME_NETWORK.split())}
MODES: Mapping[str, Mode] = {
    "stop and wait": Synchronous(),
    "naive switch": NaiveAsync(),
    "hard overwrite": HardOverwrite(),
    "temporal merge": TemporalMerge(),
    "real-time chunking, vjp": RealTimeChunking(guidance=Guidance(beta=BETA)),
    "real-time chunking, identity": RealTimeChunking(guidance=Guidance(beta=BETA, jacobian="identity")),
}


def train(run: Path, *overrides: str) -> None:
    """Train with the command, unless that is done already."""
    words = ["experiment=push_t", f"run={run}", "evaluation.episodes=0", "resume=true", *overrides]
    subprocess.run([sys.executable, "-m", "sensorimotor", "train", *words], check=True)


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


def kept_in(folder: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in the folder under this name, or else measured and put there."""
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure()))
        print(f"measured {name}", flush=True)
    return json.loads(path.read_text())


def row(policy: str, delay: int, mode: str, found: Mapping[str, Any]) -> list[str]:
    commanded, pusher = (mean_interval(found[key]) for key in ("jerk_commanded", "jerk_pusher"))
    solved = [at for at in found["solved_at"] if at]
    return [
        policy,
        str(delay),
        mode,
        success(found).percent(),
        f"{np.mean(solved):.0f}" if solved else "",
        f"{commanded.value:.2f} [{commanded.low:.2f}, {commanded.high:.2f}]",
        f"{pusher.value:.2f} [{pusher.low:.2f}, {pusher.high:.2f}]",
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


def select(runs: Path, episodes: int) -> None:
    """Success and jerk for several beta, on starts kept for choosing."""
    policy = load(runs / "flow")
    for jacobian in ("vjp", "identity"):
        for beta in (5.0, 10.0):
            mode = RealTimeChunking(guidance=Guidance(beta=beta, jacobian=jacobian))
            found = kept_in(
                runs / "selection",
                f"{jacobian} beta {beta:g}",
                lambda mode=mode: roll_out(policy, mode, 3, episodes=episodes, first_seed=SELECTION),
            )
            print(row("flow", 3, f"{jacobian}, beta {beta:g}", found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_delay"))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--delays", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--select", action="store_true", help="only show what beta was chosen on")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.policies:
        train(chosen.runs / name, *POLICIES[name])
    if chosen.select:
        select(chosen.runs, chosen.episodes // 2)
        return
    results: dict[tuple[str, int, str], dict[str, Any]] = {}
    for name in chosen.policies:
        policy = load(chosen.runs / name)
        wanted = [(0, "stop and wait"), *((delay, mode) for delay in chosen.delays for mode in MODES)]
        for delay, mode in wanted:
            results[name, delay, mode] = kept_in(
                chosen.runs / f"evaluations_{chosen.episodes}",
                f"{name} {delay} {mode}",
                lambda policy=policy, delay=delay, mode=mode: roll_out(
                    policy, MODES[mode], delay, episodes=chosen.episodes, first_seed=REPORTING
                ),
            )
    most = max(chosen.delays)
    first = chosen.policies[0]
    shown = (
        f"{mode} {100 * success(results[first, most, mode]).value:.0f} % and "
        f"{np.mean(results[first, most, mode]['jerk_commanded']):.1f} m/s³"
        for mode in MODES
    )
    record(
        "push_t_delay",
        title="PushT with chunks that arrive late: success and jerk",
        columns=[
            "policy",
            "delay, steps",
            "execution",
            "success [95 %]",
            "steps to success",
            "jerk of commands, m/s³ [95 %]",
            "jerk of the pusher, m/s³ [95 %]",
            "steps held",
        ],
        rows=[row(*key, found) for key, found in results.items()],
        headline=f"delay of {most} steps, {first}: {'; '.join(shown)}",
        notes=[
            f"Seeds {REPORTING} to {REPORTING + chosen.episodes - 1}, 300 steps of 0.1 s; chunks of 16, the next one "
            "asked for after 8; delay 0 is plain receding-horizon execution.",
            "One training seed per policy: intervals are over episodes only. 5,000 updates on the bundled demonstrations.",
            f"beta {BETA:g} with exponential weights, looked at on seeds {SELECTION} and up; temporal merge is 0.3 old "
            "and 0.7 new.",
            "Jerk: third difference per control step times the cube of the control rate, mean per episode.",
        ],
        data=[
            {"policy": k[0], "delay": k[1], "execution": k[2], **summary(found)}
            for k, found in results.items()
        ],
    )


if __name__ == "__main__":
    main()
