"""How fast training windows are drawn: whole batches by index arithmetic, against one item at a time.

Both sides draw the same windows from the same arrays in memory, a set of PushT's size (206 episodes, 25,650 steps,
20 numbers observed, 2 commanded) with Diffusion Policy's window lengths. The peer is what most training code does:
a PyTorch `Dataset` that cuts and pads one window, and a `DataLoader` that collates 256 of them.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from record import record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows

BATCH = 256
EPISODES, STEPS = 206, 25_650
Item = dict[str, Tensor]


def synthetic_episodes(generator: np.random.Generator) -> Episodes:
    """Numbers without meaning in the shape of PushT; episode lengths vary about their mean of 124.5."""
    spec = Spec(
        observation={"state": Field(shape=(2,)), "environment": Field(shape=(18,))},
        action=Field(shape=(2,)),
        control_hz=10.0,
    )
    lengths = 49 + generator.multinomial(STEPS - 49 * EPISODES, np.full(EPISODES, 1 / EPISODES))
    return Episodes(
        spec=spec,
        observation={
            key: generator.standard_normal((STEPS, *field.shape), dtype=np.float32)
            for key, field in spec.observation.items()
        },
        action=generator.standard_normal((STEPS, 2), dtype=np.float32),
        ends=np.cumsum(lengths),
    )


class ItemDataset(Dataset[Item]):
    """One window at a time, as plainly as it can be written."""

    def __init__(self, episodes: Episodes, spec: Spec) -> None:
        self.episodes, self.spec = episodes, spec
        self.bounds = [
            (int(start), int(end))
            for start, end in zip(episodes.starts, episodes.ends, strict=True)
            for _ in range(end - start)
        ]

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, now: int) -> Item:
        (start, end), spec = self.bounds[now], self.spec
        item = {
            key: torch.from_numpy(padded(array, now - spec.observation_steps + 1, now + 1, start, end))
            for key, array in self.episodes.observation.items()
        }
        first = now + spec.start
        item["action"] = torch.from_numpy(
            padded(self.episodes.action, first, first + spec.horizon, start, end)
        )
        steps = np.arange(first, first + spec.horizon)
        item["mask"] = torch.from_numpy((steps >= start) & (steps < end))
        return item


def padded(array: np.ndarray, first: int, stop: int, start: int, end: int) -> np.ndarray:
    """Rows first..stop of an episode that spans start..end, its edges repeated outside."""
    rows = array[max(first, start) : min(stop, end)]
    before, after = max(0, start - first), max(0, stop - end)
    if before or after:
        rows = np.concatenate([rows[:1].repeat(before, axis=0), rows, rows[-1:].repeat(after, axis=0)])
    return rows


def whole_batches(windows: Windows, generator: np.random.Generator) -> Iterator[Item]:
    """One epoch of ours."""
    order = generator.permutation(len(windows))
    for start in range(0, len(order), BATCH):
        batch = windows.batch(order[start : start + BATCH])
        yield {**batch.observation, "action": batch.action, "mask": batch.mask}


def check_same_work(windows: Windows, dataset: ItemDataset) -> None:
    """Every window of both sides is the same, or there is nothing to compare."""
    batch = windows.batch(np.arange(len(windows)))
    ours = {**batch.observation, "action": batch.action, "mask": batch.mask}
    for now in range(len(dataset)):
        if any(not torch.equal(ours[key][now], value) for key, value in dataset[now].items()):
            raise SystemExit(f"window {now} differs between the two sides; nothing was measured")


def windows_per_second(epoch: Callable[[], Iterator[Item]], seconds: float) -> float:
    """Rate over whole epochs until `seconds` have passed; starting workers is nobody's sampling speed."""
    drawn, spent = 0, 0.0
    while spent < seconds:
        batches = epoch()
        next(batches)
        start = time.perf_counter()
        drawn += sum(len(batch["action"]) for batch in batches)
        spent += time.perf_counter() - start
    return drawn / spent


def measure(rounds: int, seconds: float) -> dict[str, list[float]]:
    """Alternating runs, so that a slow minute of the machine is shared by all."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    episodes = synthetic_episodes(generator)
    spec = episodes.spec.chunked(observation_steps=2, horizon=16, execute=8, start=-1)
    windows, dataset = Windows(episodes, spec), ItemDataset(episodes, spec)
    check_same_work(windows, dataset)
    contenders: dict[str, Callable[[], Iterator[Item]]] = {
        "Windows.batch": lambda: whole_batches(windows, generator)
    }
    for workers in (0, 2):
        loader = DataLoader(
            dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        contenders[f"Dataset + DataLoader, {workers} workers"] = loader.__iter__
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, epoch in contenders.items():
            rates[name].append(windows_per_second(epoch, seconds))
    return rates


def spread(values: list[float], form: str) -> str:
    """Median, and lowest to highest."""
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Windows.batch against a Dataset and DataLoader")
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs of each side (default 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per run at least (default 1)")
    arguments = parser.parse_args()
    rates = measure(arguments.rounds, arguments.seconds)
    ours, *peers = rates
    ratios = {name: [a / b for a, b in zip(rates[ours], rates[name], strict=True)] for name in peers}
    best = min(peers, key=lambda name: np.median(ratios[name]))
    record(
        "window_sampling",
        title="Drawing training windows: whole batches against one item at a time",
        columns=("sampler", "windows per second", "ours / it, same round"),
        rows=[
            (name, spread(values, ",.0f"), spread(ratios[name], ".1f") if name in ratios else "")
            for name, values in rates.items()
        ],
        headline=f"{np.median(ratios[best]):.0f} times the windows per second of a per-item {best}",
        notes=(
            f"{EPISODES} episodes, {STEPS:,} steps in memory; 2 observations of 20 numbers, 16 actions of 2; batch "
            f"{BATCH}; one thread.",
            f"Median (lowest to highest) of {arguments.rounds} alternating runs of {arguments.seconds:g} s or more; "
            f"all {STEPS:,} windows were compared first and are equal.",
        ),
        data={"name": "window_sampling", "windows_per_second": rates, "ratio": ratios},
    )


if __name__ == "__main__":
    main()
