"""Observations to feature vectors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError, SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from .crop import View
from .vision import VisionConfig, VisionEncoder, is_camera

_NEAR, _FAR = 0.25, 4.0  # offsets: the share of the range that becomes 1, and where they are clipped


def check_octaves(octaves: int) -> None:
    """Raise for a number of octaves that means nothing, or frequencies beyond what single precision tells apart."""
    if not 0 <= octaves <= 16:
        raise ConfigError(f"octaves must lie in 0..16, got {octaves}; 4 suit positions in a workspace")


class LowDimEncoder(nn.Module):
    """Normalises every observation key and lays them side by side, in the order of the spec.

    With `octaves`, sines and cosines of every normalised number z follow, at `2^k pi z` for k = 1..octaves: a network
    tells positions apart that differ by a few thousandths only when they come at these higher frequencies too.
    With `points`, the offsets of these keys' points from `origin` come last, enlarged and clipped: what is near
    matters, and in detail.

    Attributes:
        width: C, features per observation step.
    """

    rates: Tensor | None

    def __init__(
        self, spec: Spec, *, octaves: int = 0, points: tuple[str, ...] = (), origin: str | None = None
    ) -> None:
        """Take the keys from the spec."""
        super().__init__()
        text = [key for key, field in spec.observation.items() if field.is_text]
        if text:
            rest = sorted(set(spec.observation) - set(text))
            raise SpecError(
                f"observation {text[0]!r} is text, which only vision-language-action policies read (policy=vla_tiny); "
                f"name other keys in chunk.observation, here {rest}"
            )
        images = [key for key, field in spec.observation.items() if field.is_image]
        if images:
            rest = sorted(set(spec.observation) - set(images))
            raise SpecError(
                f"observation {images[0]!r} is an image, which this policy cannot read; "
                f"name other keys in chunk.observation, here {rest}"
            )
        self.keys = tuple(spec.observation)
        self.points, self.origin, self.dimensions = points, origin, spec.action_dim
        self._check_points(spec)
        self.width = sum(field.size for field in spec.observation.values()) * (1 + 2 * octaves)
        self.width += sum(spec.observation[key].size for key in points)
        rates = math.pi * 2.0 ** torch.arange(1, octaves + 1)
        self.register_buffer("rates", rates if octaves else None, persistent=False)

    def forward(self, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Key -> (B, O, *shape) in physical units to (B, O, C)."""
        parts = []
        for key in self.keys:
            offset, scale = normalizer.affine(key)
            x = observation[key].to(offset.device, torch.float32)
            parts.append(((x - offset) / scale).reshape(*x.shape[:2], -1))
        if self.rates is not None:
            angle = (torch.cat(parts, dim=-1)[..., None] * self.rates).flatten(-2)
            parts += [angle.sin(), angle.cos()]
        parts += [self._offsets(key, observation, normalizer) for key in self.points]
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def _offsets(self, key: str, observation: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Where the points of a key lie from the origin, (B, O, size); `_NEAR` of the key's own range becomes 1."""
        _, scale = normalizer.affine(key)
        here = observation[self.origin or key].to(scale)[..., None, : self.dimensions]
        offsets = observation[key].to(scale).unflatten(-1, (-1, self.dimensions)) - here
        return (offsets.flatten(-2) / (_NEAR * scale)).clamp(-_FAR, _FAR)

    def _check_points(self, spec: Spec) -> None:
        for key in self.points:
            if self.origin is None or key not in self.keys or spec.observation[key].size % self.dimensions:
                raise SpecError(
                    f"points {key!r} must be an observation of whole points of {self.dimensions} numbers, with "
                    f"`relative` naming the position they are seen from; there are {list(self.keys)}, "
                    f"relative is {self.origin!r}"
                )


class ObservationEncoder(nn.Module):
    """Numbers as `LowDimEncoder` makes them, then the features of every camera.

    Attributes:
        points: observation keys that hold points, see `LowDimEncoder`.
        width: C, features per observation step.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        octaves: int = 0,
        points: tuple[str, ...] = (),
        origin: str | None = None,
        vision: VisionConfig | None = None,
    ) -> None:
        """Take the keys from the spec; `image.<camera>` are cameras."""
        super().__init__()
        numbers = tuple(key for key in spec.observation if not is_camera(key))
        self.points = points
        self.low_dim: LowDimEncoder | None = None
        self.vision: VisionEncoder | None = None
        self.width = 0
        if numbers or points:
            self.low_dim = LowDimEncoder(spec.keep(numbers), octaves=octaves, points=points, origin=origin)
            self.width += self.low_dim.width
        if len(numbers) < len(spec.observation):
            self.vision = VisionEncoder(vision or VisionConfig(), spec)
            self.width += self.vision.width

    def draw_views(
        self, observation: Mapping[str, Tensor], generator: torch.Generator
    ) -> Mapping[str, View] | None:
        """What is seen of training windows (B, O, ...), drawn at random; None without cameras."""
        if self.vision is None:
            return None
        return self.vision.draw_views(len(observation[self.vision.cameras[0]]), generator)

    def forward(
        self,
        observation: Mapping[str, Tensor],
        normalizer: Normalizer,
        views: Mapping[str, View] | None = None,
    ) -> Tensor:
        """Key -> (B, O, *shape) in physical units to (B, O, C); cameras show the centre of their frames, or `views`."""
        parts = []
        if self.low_dim is not None:
            parts.append(self.low_dim(observation, normalizer))
        if self.vision is not None:
            parts.append(self.vision(observation, views))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
