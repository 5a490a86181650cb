"""Observations to feature vectors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.errors import SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec


class LowDimEncoder(nn.Module):
    """Normalises every observation key and lays them side by side, in the order of the spec.

    Attributes:
        width: C, features per observation step.
    """

    def __init__(self, spec: Spec) -> None:
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
        self.width = sum(field.size for field in spec.observation.values())

    def forward(self, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Key -> (B, O, *shape) in physical units to (B, O, C)."""
        parts = []
        for key in self.keys:
            offset, scale = normalizer.affine(key)
            x = observation[key].to(offset.device, torch.float32)
            parts.append(((x - offset) / scale).reshape(*x.shape[:2], -1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
