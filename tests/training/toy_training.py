"""A problem small enough to train in milliseconds: noisy linear regression through a network with dropout.

Also a program, so that a test can start a training process and do it harm; see `main`.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import Outcome, train
from sensorimotor.training.progress import NoProgress

INPUTS, OUTPUTS = 6, 3


@dataclass(frozen=True)
class ToyBatch:
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> "ToyBatch":
        return ToyBatch(self.x.to(device), self.y.to(device))


class ToyData:
    """Linear data; `bad` windows hold a NaN."""

    def __init__(self, length: int = 40, seed: int = 0, bad: tuple[int, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(7)
        matrix = torch.randn(INPUTS, OUTPUTS, generator=generator)
        self.x = torch.randn(length, INPUTS, generator=generator.manual_seed(100 + seed))
        self.y = self.x @ matrix
        for window in bad:
            self.x[window, 0] = float("nan")

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: NDArray[np.int64]) -> ToyBatch:
        rows = torch.from_numpy(index)
        return ToyBatch(self.x[rows], self.y[rows])


class ToyModel(nn.Module):
    def __init__(self, *, dropout: float = 0.1, noise: float = 0.1, seed: int = 0, width: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(INPUTS, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, OUTPUTS)
            )
        self.noise = noise

    def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
        noise = torch.randn(batch.x.shape, generator=generator, device=batch.x.device)
        return (self.network(batch.x + self.noise * noise) - batch.y).square().mean()


def toy_config(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "steps": 12,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "log_every": 3,
        "evaluate_every": 4,
        "evaluate_batches": 2,
        "checkpoint_every": 5,
        "threads": 1,
        "device": "cpu",
        "tensorboard": False,
    }
    return TrainingConfig(**(values | changes))


def toy_train(folder: Path, config: TrainingConfig | None = None, **options: Any) -> tuple[Outcome, ToyModel]:
    """Train a fresh model (or continue one) on the toy problem, showing nothing."""
    model = options.pop("model", None) or ToyModel()
    data = options.pop("data", None) or ToyData()
    options = {"held_out": ToyData(20, seed=1), "progress": NoProgress()} | options
    return train(model, data, config or toy_config(), folder, **options), model


def stop_at(step: int) -> Callable[[], bool]:
    """Ask to stop after the given number of updates of one call."""
    calls = iter(range(1, 10**9))
    return lambda: next(calls) >= step


def main() -> int:
    """Train in this process: with pauses, under torchrun, or asked to stop in one process only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=json.loads, default={})
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each update")
    parser.add_argument("--stop-at", type=int, help="updates after which the last process asks to stop")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    last_process = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
    asked = stop_at(arguments.stop_at if arguments.stop_at and last_process else 10**9)

    def pause_and_ask() -> bool:
        time.sleep(arguments.pause)
        return asked()

    config = toy_config(**arguments.config)
    outcome, _ = toy_train(arguments.folder, config, resume=arguments.resume, stop=pause_and_ask)
    sys.stdout.write(json.dumps({"stopped": outcome.stopped, "steps": outcome.steps}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
