"""Everything that changes during training, and its way into a checkpoint and back."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..data.errors import ConfigError
from .checkpoint import EMA, MODEL, Checkpoint, load_weights, save_weights
from .ema import Ema
from .meter import Meter
from .optimizer import optimizer_tensors, restore_optimizer

_OPTIMIZER = "training/optimizer.safetensors"
_STATE = "training/state.json"


@dataclass(kw_only=True)
class State:
    """The state of a run after `step` updates.

    The order of the data, the noise and the dropout are functions of (seed, step), and the learning rate of the
    step: a resumed run needs no generator, loader or scheduler state.

    Attributes:
        model: the model itself, never a wrapper of it.
        optimizer: over the model's parameters.
        ema: its average, or None.
        identity: what must be the same when a run is resumed, e.g. seed and batch size.
        step: updates made.
        seconds: time spent on them, over all calls.
        loss: mean training loss of the newest row of metrics.
        best: lowest held-out loss.
        meter: losses that no row holds yet.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    identity: Mapping[str, int]
    step: int = 0
    seconds: float = 0.0
    loss: float | None = None
    best: float | None = None
    meter: Meter = field(default_factory=Meter)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Let the model hold its averaged weights inside the block, if there are any."""
        return contextlib.nullcontext() if self.ema is None else self.ema.swapped()

    def write(self, folder: Path) -> None:
        """Write the files of a checkpoint."""
        (folder / "training").mkdir()
        save_weights(self.model, folder / MODEL)
        if self.ema is not None:
            with self.averaged():
                save_weights(self.model, folder / EMA)
        save_file(optimizer_tensors(self.model, self.optimizer), folder / _OPTIMIZER)
        numbers = {
            "identity": dict(self.identity),
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "best": self.best,
            "ema_updates": self.ema.updates if self.ema else None,
            "losses": self.meter.losses,
            "gradient_norms": self.meter.norms,
        }
        (folder / _STATE).write_text(json.dumps(numbers, indent=2))

    def read(self, checkpoint: Checkpoint) -> None:
        """Become the state that a checkpoint holds.

        Raises:
            ConfigError: if the run was made with another seed, batch size or dataset, or without an average.
            CheckpointError: if the checkpoint does not fit the model.
        """
        numbers = checkpoint.json(_STATE)
        for name, value in self.identity.items():
            if numbers["identity"].get(name) != value:
                raise ConfigError(
                    f"{checkpoint.folder} was trained with {name} {numbers['identity'].get(name)}, this run has "
                    f"{value}; resume with the same value, or start a new run in another folder"
                )
        if (self.ema is None) != (numbers["ema_updates"] is None):
            raise ConfigError(
                f"{checkpoint.folder} was trained {'without' if self.ema else 'with'} ema, this run "
                f"{'with' if self.ema else 'without'}; resume with the same, or start a new run in another folder"
            )
        load_weights(self.model, checkpoint, MODEL)
        if self.ema is not None:
            with self.averaged():
                load_weights(self.model, checkpoint, EMA)
            self.ema.updates = numbers["ema_updates"]
        restore_optimizer(self.model, self.optimizer, checkpoint.tensors(_OPTIMIZER))
        self.step, self.seconds = numbers["step"], numbers["seconds"]
        self.loss, self.best = numbers["loss"], numbers["best"]
        self.meter.losses, self.meter.norms = numbers["losses"], numbers["gradient_norms"]
