"""Losses and gradient norms since the last row of metrics, read from the device as late as possible."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fault:
    """An update whose loss or gradient norm is not finite."""

    step: int
    loss: float
    gradient_norm: float


class Meter:
    """Collects one loss and one gradient norm per update.

    On an accelerator a number that is read makes the host wait for the device; tensors are therefore kept as they
    are, and read together when a row is due.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self._waiting: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Take the loss and the gradient norm of update `step`, both scalar tensors."""
        self._waiting.append((step, loss, norm))

    def read(self, mean: Callable[[Tensor], Tensor]) -> Fault | None:
        """Fetch what is waiting.

        Args:
            mean: average over processes.

        Returns:
            The first update that is not finite, if there is one.
        """
        if not self._waiting:
            return None
        steps = [step for step, _, _ in self._waiting]
        numbers = torch.stack([x.float() for _, loss, norm in self._waiting for x in (loss, norm)])
        self._waiting.clear()
        values = mean(numbers).tolist()
        for step, loss, norm in zip(steps, values[::2], values[1::2], strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                return Fault(step, loss, norm)
            self.losses.append(loss)
            self.norms.append(norm)
        return None

    def means(self) -> tuple[float, float]:
        """Mean loss and gradient norm of what was read since the last call."""
        count = len(self.losses)
        loss, norm = math.fsum(self.losses) / count, math.fsum(self.norms) / count
        self.losses.clear()
        self.norms.clear()
        return loss, norm
