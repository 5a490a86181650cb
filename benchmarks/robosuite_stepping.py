"""How fast lift, can and square are stepped: ours and robosuite's own loop, from the same starts, same actions.

Both run robosuite's models and controller at 20 Hz, 25 simulator steps each, with low-dimensional observations, reward
and success. The contestants take turns in one process; medians over the turns.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from record import record

from sensorimotor.sim.batch import usable_cores
from sensorimotor.sim.manipulation.scene import KINDS, TaskName, quiet
from sensorimotor.sim.manipulation.task import RobosuiteConfig, RobosuiteWorlds

EPISODE = 60
Run = Callable[[], None]


def actions(worlds: int) -> np.ndarray:
    """(EPISODE, worlds, 7) slow wandering with closing fingers, most of it in free space."""
    generator = np.random.default_rng(0)
    moves = generator.normal(0, 0.2, (EPISODE, worlds, 7))
    moves[..., 6] = 1.0
    return moves


def ours(task: TaskName, worlds: int, threads: int) -> tuple[Run, RobosuiteWorlds]:
    played = RobosuiteWorlds(RobosuiteConfig(task=task, threads=threads), worlds=worlds)
    moves = actions(worlds)

    def run() -> None:
        played.reset(range(worlds))
        for action in moves:
            played.step(action)

    return run, played


def robosuites(played: RobosuiteWorlds) -> Run:
    """One environment, as robosuite steps it; it has no way to step several."""
    inner: Any = played.scene
    env, moves = inner._env, actions(1)[:, 0]

    def run() -> None:
        inner.start(0)
        for action in moves:
            env.step(action)

    return run


def measure(task: TaskName, worlds: int, rounds: int, threads: int) -> dict[str, float]:
    """Control steps per second of each, all worlds together, and ratios turn by turn; medians over the turns."""
    one, alone = ours(task, 1, 1)
    many, together = ours(task, worlds, threads)
    contestants = {"robosuite": robosuites(alone), "one": one, "many": many}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append((time.perf_counter() - began) / (worlds if name == "many" else 1))
    alone.close()
    together.close()
    taken = {name: np.array(times) for name, times in seconds.items()}
    rates = {name: EPISODE / float(np.median(times)) for name, times in taken.items()}
    for name in ("one", "many"):
        rates[f"{name}_ratio"] = float(np.median(taken["robosuite"] / taken[name]))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    with quiet():
        results = {t: measure(t, options.worlds, options.rounds, options.threads) for t in KINDS}
    rows = [
        [
            task,
            f"{r['robosuite']:,.0f}",
            f"{r['one']:,.0f}",
            f"{r['one_ratio']:.1f}",
            f"{r['many']:,.0f}",
            f"{r['many_ratio']:.1f}",
        ]
        for task, r in results.items()
    ]
    record(
        "robosuite_stepping",
        title="Stepping lift, can and square: control steps per second against robosuite's own loop",
        columns=[
            "task",
            "robosuite, 1 world",
            "ours, 1 world",
            "x robosuite",
            f"ours, {options.worlds} worlds",
            "x robosuite",
        ],
        rows=rows,
        headline="; ".join(
            f"{task}: {r['one_ratio']:.1f} x robosuite's rate alone, {r['many_ratio']:.1f} x with {options.worlds} worlds"
            for task, r in results.items()
        ),
        notes=[
            f"Episodes of {EPISODE} steps with their reset; median of {options.rounds} alternating turns; "
            f"threads for {options.worlds} worlds: {options.threads}.",
            "Same physics and controller: after 25 random actions positions agree to 1e-6 (tests/sim/manipulation).",
        ],
        data=results,
    )


if __name__ == "__main__":
    main()
