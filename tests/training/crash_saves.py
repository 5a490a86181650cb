"""Programs that harm a save: `kills` dies at every moment of one, `full` runs out of space in one.

Prints one JSON line per trial. Forks, so it is a program of its own rather than part of a test process.
"""

import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sensorimotor.data.errors import CheckpointError
from sensorimotor.training.checkpoint import load_weights, read_checkpoint, save_checkpoint, save_weights


def save(target: Path, value: float, size: int = 64) -> None:
    model = nn.Linear(size, 1, bias=False)
    nn.init.constant_(model.weight, value)
    save_checkpoint(target, lambda folder: save_weights(model, folder / "model.safetensors"))


def saved_value(target: Path, size: int = 64) -> float:
    model = nn.Linear(size, 1, bias=False)
    load_weights(model, read_checkpoint(target))
    return float(model.weight.detach().mean())


def die_before_call(number: int) -> None:
    """Arm every system step of a save: the chosen one kills this process instead."""
    left = itertools.count(number, -1)

    def deadly(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        return call

    for module, name in (
        (os, "fsync"),
        (os, "replace"),
        (shutil, "rmtree"),
        (hashlib, "file_digest"),
        (Path, "write_text"),
        (Path, "mkdir"),
    ):
        setattr(module, name, deadly(getattr(module, name)))


def kills(target: Path) -> None:
    for number in itertools.count():
        save(target, 1.0)
        child = os.fork()
        if child == 0:
            die_before_call(number)
            save(target, 2.0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        left = [p.name for p in target.parent.iterdir() if p != target]
        value = saved_value(target)
        sys.stdout.write(json.dumps({"killed": killed, "value": value, "left": left}) + "\n")
        if not killed:
            return


def full(target: Path) -> None:
    save(target, 1.0, 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    try:
        save(target, 2.0, 100_000)
        message = ""
    except CheckpointError as error:
        message = str(error)
    left = [p.name for p in target.parent.iterdir() if p != target]
    sys.stdout.write(
        json.dumps({"message": message, "value": saved_value(target, 1000), "left": left}) + "\n"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"kills": kills, "full": full}[sys.argv[1]](Path(sys.argv[2]))
