"""How fast windows with camera frames are drawn from an HDF5 file, against memory and against one item at a time.

All sides draw the same windows of the same robomimic file, as large as robomimic's image sets of 84 x 84 px: ours leave
the frames in the file (`load_dataset(path, lazy_images=True)`) or hold them in memory; the peer is a PyTorch `Dataset`
that opens the file once per worker and reads the frames and actions of one window, and a `DataLoader` that collates.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from record import record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from window_sampling import padded, spread

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.formats.robomimic import write_robomimic
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows

BATCH = 64
EPISODES, STEPS, SIDE = 60, 100, 84
CAMERA = "image.agentview"
Item = dict[str, Tensor]


def synthetic_episodes(generator: np.random.Generator) -> Episodes:
    """Smooth pictures with noise on top, which pack about as well as rendered ones."""
    steps = EPISODES * STEPS
    coarse = generator.integers(0, 200, (steps, 7, 7, 3), dtype=np.uint8)
    frames = coarse.repeat(12, axis=1).repeat(12, axis=2)
    frames += generator.integers(0, 4, frames.shape, dtype=np.uint8)
    spec = Spec(
        observation={"state": Field(shape=(9,)), CAMERA: Field(shape=(SIDE, SIDE, 3), dtype="uint8")},
        action=Field(shape=(7,)),
        control_hz=20.0,
    )
    return Episodes(
        spec=spec,
        observation={"state": generator.standard_normal((steps, 9), dtype=np.float32), CAMERA: frames},
        action=generator.standard_normal((steps, 7), dtype=np.float32),
        ends=np.arange(1, EPISODES + 1) * STEPS,
    )


class ItemDataset(Dataset[Item]):
    """One window at a time, read from the file."""

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path, self.spec = path, spec
        self.file: h5py.File | None = None  # opened by the process that reads

    def __len__(self) -> int:
        return EPISODES * STEPS

    def __getitem__(self, now: int) -> Item:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        episode, step = divmod(now, STEPS)
        demo: Any = self.file[f"data/demo_{episode}"]
        spec = self.spec
        item = {
            key: torch.from_numpy(
                padded(demo[f"obs/{key}"], step - spec.observation_steps + 1, step + 1, 0, STEPS)
            )
            for key in spec.observation
        }
        item["action"] = torch.from_numpy(padded(demo["actions"], step, step + spec.horizon, 0, STEPS))
        return item


def our_batches(windows: Windows, generator: np.random.Generator) -> Iterator[Item]:
    """One epoch of ours."""
    order = generator.permutation(len(windows))
    for start in range(0, len(order), BATCH):
        batch = windows.batch(order[start : start + BATCH])
        yield {**batch.observation, "action": batch.action}


def check_same_work(windows: Windows, dataset: ItemDataset, generator: np.random.Generator) -> None:
    """A share of the windows of both sides is compared, or there is nothing to measure."""
    index = generator.permutation(len(dataset))[:500]
    batch = windows.batch(index)
    ours = {**batch.observation, "action": batch.action}
    for place, now in enumerate(index.tolist()):
        if any(not torch.equal(ours[key][place], value) for key, value in dataset[now].items()):
            raise SystemExit(f"window {now} differs between the two sides; nothing was measured")
    dataset.file = None


def frames_per_second(epoch: Callable[[], Iterator[Item]], seconds: float) -> float:
    """Rate over `seconds` or a little more, from the second batch on: starting workers is nobody's reading speed."""
    batches = epoch()
    next(batches)
    drawn, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        batch = next(batches, None)
        if batch is None:
            batches = epoch()
            continue
        drawn += batch[CAMERA].shape[0] * batch[CAMERA].shape[1]
    return drawn / (time.perf_counter() - began)


def contenders(
    path: Path, spec: Spec, generator: np.random.Generator
) -> dict[str, Callable[[], Iterator[Item]]]:
    """Everyone who draws from one file."""
    lazy = Windows(load_dataset(path, lazy_images=True), spec)
    memory, dataset = Windows(load_dataset(path), spec), ItemDataset(path, spec)
    check_same_work(lazy, dataset, generator)
    found: dict[str, Callable[[], Iterator[Item]]] = {
        "ours, frames left in the file": lambda: our_batches(lazy, generator),
        "ours, frames in memory": lambda: our_batches(memory, generator),
    }
    for workers in (0, 2):
        loader = DataLoader(
            dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        found[f"Dataset + DataLoader, {workers} workers"] = loader.__iter__
    return found


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Alternating runs, so that a slow minute of the machine is shared by all."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    episodes = synthetic_episodes(generator)
    spec = episodes.spec.chunked(observation_steps=2, horizon=16, execute=8)
    rates: dict[str, dict[str, list[float]]] = {}
    for layout in ("plain", "gzip"):
        path = folder / f"{layout}.hdf5"
        write_robomimic(episodes, path, compression="gzip" if layout == "gzip" else None)
        sides = contenders(path, spec, generator)
        rates[layout] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, epoch in sides.items():
                rates[layout][name].append(frames_per_second(epoch, seconds))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description="windows with camera frames, from a file and from memory")
    parser.add_argument("--rounds", type=int, default=5, help="alternating runs of each side (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per run (default 1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), arguments.rounds, arguments.seconds)
    rows, best = [], {}
    for layout, sides in rates.items():
        ours, _, *peers = sides
        ratios = {name: [a / b for a, b in zip(sides[ours], sides[name], strict=True)] for name in sides}
        best[layout] = min(float(np.median(ratios[name])) for name in peers)
        rows += [
            (layout, name, spread(values, ",.0f"), spread(ratios[name], ".2f") if name != ours else "")
            for name, values in sides.items()
        ]
    record(
        "image_windows",
        title="Drawing windows with camera frames: left in the file, in memory, one item at a time",
        columns=("file", "reader", "frames per second", "ours in the file / it, same round"),
        rows=rows,
        headline=(
            f"{best['plain']:.1f} times (plain file) and {best['gzip']:.1f} times (gzip) the frames per second of a "
            "per-item DataLoader on the same file, without holding frames in memory"
        ),
        notes=(
            f"{EPISODES * STEPS:,} steps of {SIDE} x {SIDE} px; 2 observations, 16 actions of 7; batch {BATCH}; one "
            "thread. The file is in the page cache, as small sets are from the second epoch on.",
            f"Median (lowest to highest) of {arguments.rounds} alternating runs of {arguments.seconds:g} s; 500 windows "
            "were compared first and are equal.",
        ),
        data={"name": "image_windows", "frames_per_second": rates},
    )


if __name__ == "__main__":
    main()
