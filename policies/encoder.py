"""Observations to feature vectors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.errors import SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec


class LowDimEncoder(nn.Module):
    """Normalises every observation key and lays them side by side, in the order of the spec.

    With `octaves`, sines and cosines of every normalised number z follow, at `2^k pi z` for k = 1..octaves: a network
    tells positions apart that differ by a few thousandths only when they come at these higher frequencies too.

    Attributes:
        width: C, features per observation step.
    """

    rates: Tensor | None

    def __init__(self, spec: Spec, *, octaves: int = 0) -> None:
        """Take the keys from the spec."""
        super().__init__()
        images = [
            key for key, field in spec.observation.items() if len(field.shape) > 2 or field.dtype == "uint8"
        ]
        if images:
            rest = sorted(set(spec.observation) - set(images))
            raise SpecError(
                f"observation {images[0]!r} is an image, which policies cannot read yet; "
                f"name other keys in chunk.observation, here {rest}"
            )
        self.keys = tuple(spec.observation)
        self.width = sum(field.size for field in spec.observation.values()) * (1 + 2 * octaves)
        rates = math.pi * 2.0 ** torch.arange(1, octaves + 1)
        self.register_buffer("rates", rates if octaves else None, persistent=False)

    def forward(self, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Key -> (B, O, *shape) in physical units to (B, O, C)."""
        parts = []
        for key in self.keys:
            offset, scale = normalizer.affine(key)
            x = observation[key].to(offset.device, torch.float32)
            parts.append(((x - offset) / scale).reshape(*x.shape[:2], -1))
        z = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        if self.rates is None:
            return z
        angle = (z[..., None] * self.rates).flatten(-2)
        return torch.cat([z, angle.sin(), angle.cos()], dim=-1)
