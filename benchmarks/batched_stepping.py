"""How fast N PushT worlds are stepped: ours, Gymnasium's vector environments, and the ceiling.

The ceiling is `mujoco.rollout` alone in closed loop: the same model, threads and substeps, one call per control step,
no observation, reward, success or reset. Ours and Gymnasium's do all of these, every world starting anew after
`EPISODE` steps, under the same actions. The contestants take turns in one process; medians over the turns.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from record import record

from sensorimotor.sim.batch import BatchedPhysics, usable_cores
from sensorimotor.sim.push_t import SUBSTEPS, PushTConfig, PushTWorlds, load_model, start_positions
from sensorimotor.sim.push_t_env import PushT

EPISODE = 100
Run = Callable[[], None]


def actions(worlds: int) -> np.ndarray:
    """(EPISODE, worlds, 2) targets that scatter round the starting block: half the worlds are in contact."""
    generator = np.random.default_rng(0)
    block = start_positions(range(worlds), PushTConfig())[:, :2]
    return np.clip(block + generator.normal(0, 0.05, (EPISODE, worlds, 2)), -0.25, 0.25)


def ceiling(worlds: int, threads: int) -> tuple[Run, Run]:
    starts = start_positions(range(worlds), PushTConfig())
    physics = BatchedPhysics(load_model(), worlds=worlds, substeps=SUBSTEPS, threads=threads)
    inner: Any = physics  # its buffers and pool, so that nothing but mujoco.rollout is timed
    controls = np.repeat(actions(worlds)[:, :, None], SUBSTEPS, axis=2)
    physics.place(starts)
    begin = physics.state.copy()

    def run() -> None:
        state = begin
        for control in controls:
            inner._pool.rollout(
                inner._models,
                inner._datas,
                state,
                control,
                skip_checks=True,
                nstep=SUBSTEPS,
                state=inner._trajectory,
            )
            state = inner._trajectory[:, -1].copy()

    return run, physics.close


def ours(worlds: int, threads: int) -> tuple[Run, Run]:
    task = PushTWorlds(PushTConfig(threads=threads, max_steps=EPISODE), worlds=worlds)
    targets = actions(worlds)

    def run() -> None:
        task.reset(range(worlds))
        for action in targets:
            task.step(action)

    return run, task.close


def gymnasiums(kind: str, worlds: int) -> tuple[Run, Run]:
    make = partial(PushT, PushTConfig(max_steps=EPISODE))
    vector = {"sync": gymnasium.vector.SyncVectorEnv, "async": gymnasium.vector.AsyncVectorEnv}[kind]
    env = vector([make for _ in range(worlds)])
    targets = actions(worlds).astype(np.float32)

    def run() -> None:
        env.reset(seed=list(range(worlds)))
        for action in targets:
            env.step(action)

    return run, env.close


def measure(worlds: int, threads: int, rounds: int) -> dict[str, float]:
    """Control steps per second of each contestant, and the ratios turn by turn; medians over `rounds` turns."""
    contestants = {
        "ceiling": ceiling(worlds, threads),
        "ours": ours(worlds, threads),
        "sync": gymnasiums("sync", worlds),
        "async": gymnasiums("async", worlds),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, (run, _) in contestants.items():
            began = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - began)
    for _, close in contestants.values():
        close()
    taken = {name: np.array(times) for name, times in seconds.items()}
    result = {name: worlds * EPISODE / float(np.median(times)) for name, times in taken.items()}
    # Neighbouring turns share the machine's mood, so that their ratio is steadier than that of two medians.
    result["of_ceiling"] = float(np.median(taken["ceiling"] / taken["ours"]))
    result["of_best_vector"] = float(np.median(np.minimum(taken["sync"], taken["async"]) / taken["ours"]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    results = {n: measure(n, min(options.threads, n), options.rounds) for n in options.worlds}
    rows = [
        [
            str(worlds),
            *(f"{rate[name]:,.0f}" for name in ("ceiling", "ours", "sync", "async")),
            f"{rate['of_ceiling']:.2f}",
            f"{rate['of_best_vector']:.1f}",
        ]
        for worlds, rate in results.items()
    ]
    shown = 64 if 64 in results else max(results)
    rate = results[shown]
    record(
        "batched_stepping",
        title="Stepping PushT: control steps per second, all worlds together",
        columns=[
            "worlds",
            "ceiling",
            "ours",
            "SyncVectorEnv",
            "AsyncVectorEnv",
            "of ceiling",
            "x best vector env",
        ],
        rows=rows,
        headline=(
            f"{shown} worlds: {rate['of_ceiling']:.2f} of mujoco.rollout alone, "
            f"{rate['of_best_vector']:.1f} x the better vector environment"
        ),
        notes=[
            f"{SUBSTEPS} substeps of 5 ms per control step, {options.threads} threads, episodes of {EPISODE} steps; "
            f"median of {options.rounds} alternating turns.",
            "The ceiling is mujoco.rollout in closed loop without observations, rewards, success and resets.",
        ],
        data={str(worlds): rate for worlds, rate in results.items()},
    )


if __name__ == "__main__":
    main()
