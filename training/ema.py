"""Exponential moving average of a model's weights.

Reference: Diffusion Policy (arXiv:2303.04137), power form: the decay at update n is 1 - (1 + max(0, n - 1))^-power,
so that the first update copies the weights and later ones average over an ever longer past.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.errors import ConfigError
from .config import EmaConfig


def ema_decay(update: int, config: EmaConfig) -> float:
    """Share of the old average kept at update n = 1, 2, ..."""
    return min(config.max_decay, 1 - (1 + max(0, update - 1)) ** -config.power)


class Ema:
    """Shadow copies of the trained parameters.

    Frozen parameters and buffers are not averaged: they are the model's own.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        """Start from a copy of the model's weights.

        Raises:
            ConfigError: for a model with batch normalisation, whose running statistics belong to the raw weights.
        """
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                raise ConfigError(
                    f"ema cannot average a model with batch normalisation, found {type(module).__name__} at "
                    f"{name or 'the top'!r}: its running statistics belong to the raw weights. "
                    "Use GroupNorm, or set ema to null"
                )
        self.config = config
        self.updates = 0
        self._parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._shadows = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present weights."""
        self.updates += 1
        weight = 1 - ema_decay(self.updates, self.config)
        torch._foreach_lerp_(self._shadows, self._parameters, weight)  # one call for all parameters

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the model hold the averaged weights inside the block; no number is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self._parameters):
            parameter.data, self._shadows[i] = self._shadows[i], parameter.data
