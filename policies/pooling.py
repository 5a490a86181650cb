"""From a feature map to a vector: where things are, or how much of each there is."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SpatialSoftmax:
    """Expected image positions under a softmax over the map (arXiv 1504.00702), which keeps where things are.

    Attributes:
        keypoints: K, maps that a 1 x 1 convolution makes; each gives one point.
        temperature: of the softmax; below 1, points keep closer to the maximum.
    """

    keypoints: int = 32
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.keypoints < 1:
            raise ConfigError(f"keypoints must be at least 1, got {self.keypoints}; 32 are usual")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be positive and finite, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class GlobalAverage:
    """The mean of every channel, which forgets where things are."""


PoolingConfig = SpatialSoftmax | GlobalAverage


def spatial_softmax(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Expected positions (N, K, 2), x to the right and y down, of maps (N, K, h, w).

    The centres of the outermost cells stand at -1 and 1; the only cell of a row or column stands at 0.
    """
    height, width = scores.shape[-2:]
    weight = (scores.flatten(2).float() / temperature).softmax(dim=-1).unflatten(2, (height, width))
    x = (weight.sum(dim=2) * _places(width, weight)).sum(dim=-1)
    y = (weight.sum(dim=3) * _places(height, weight)).sum(dim=-1)
    return torch.stack([x, y], dim=-1)


def _places(count: int, like: Tensor) -> Tensor:
    if count == 1:
        return like.new_zeros(1)
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)


class Keypoints(nn.Module):
    """Feature maps (N, C, h, w) to K points (N, K, 2)."""

    def __init__(self, config: SpatialSoftmax, channels: int) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.scores = nn.Conv2d(channels, config.keypoints, 1)
        self.temperature = config.temperature

    def forward(self, features: Tensor) -> Tensor:
        """Points in -1..1 of the map."""
        return spatial_softmax(self.scores(features), self.temperature)


def build_pooling(config: PoolingConfig, channels: int) -> tuple[Keypoints | None, int]:
    """What turns maps of so many channels into points, or None to average them; and how many numbers there will be."""
    match config:
        case SpatialSoftmax():
            return Keypoints(config, channels), 2 * config.keypoints
        case GlobalAverage():
            return None, channels
        case _:
            assert_never(config)
