"""What policies made of one network share: observations in, normalised chunks out, and the loss between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.spec import Spec
from ..data.windows import Batch
from .chunk import ChunkConfig
from .crop import View
from .encoder import ObservationEncoder, check_octaves
from .mlp import MLPConfig
from .origin import OffsetActions, check_origin, origin_of
from .policy import Policy
from .trunk import TrunkConfig, build_trunk
from .vision import VisionConfig, is_camera


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What every policy made of one network is configured by.

    Attributes:
        chunk: observations and window lengths.
        normalizer: how observations and actions are scaled.
        trunk: the network.
        vision: how camera frames are read, where `chunk.observation` names some.
        octaves: sines and cosines of every observed number, at this many doublings of frequency; 0 for none.
        relative: observation key whose latest value actions are offsets from, or None for absolute actions.
        points: observation keys that hold points in the space of the action, whose offsets from `relative` the
            network sees too.
        history_dropout: share of training windows whose older observations are replaced by the latest, so that the
            policy cannot rely on how the demonstrator moved.
        observation_noise: standard deviation of noise added to normalised observations in training.
        point_noise: standard deviation of a displacement that all points of a training window share, as a share of
            half their range. A network averages independent noise away over many points of one body; from this it
            learns to act when the body lies a little elsewhere than any demonstration had it.
        mask_loss: leave repeated actions past an episode's edge out of the loss.
        draws: how many noises every training window is learned from at once. Its observation is encoded once for all
            of them, so that where encoding is the costly part, as with cameras, more of them come almost for free.
    """

    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    normalizer: NormalizerConfig = field(default_factory=NormalizerConfig)
    trunk: TrunkConfig = field(default_factory=MLPConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    octaves: int = 0
    relative: str | None = None
    points: tuple[str, ...] = ()
    history_dropout: float = 0.0
    observation_noise: float = 0.0
    point_noise: float = 0.0
    mask_loss: bool = False
    draws: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigError(f"draws must be at least 1, got {self.draws}")
        for name in ("observation_noise", "point_noise"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if self.point_noise and not self.points:
            raise ConfigError(
                f"point_noise {self.point_noise} moves `points`, and none are named; name their keys or set it to 0"
            )
        if not 0 <= self.history_dropout <= 1:
            raise ConfigError(f"history_dropout must lie in [0, 1], got {self.history_dropout}")
        check_octaves(self.octaves)
        keys = self.chunk.observation
        if self.relative is not None and keys and self.relative not in keys:
            raise ConfigError(
                f"relative {self.relative!r} must be one of the policy's observations {list(keys)}"
            )

    def shared(self, **own: Any) -> dict[str, Any]:
        """What all policies of one network are configured by, with some of it replaced: how to make relatives."""
        return {part.name: getattr(self, part.name) for part in fields(NetworkConfig)} | own

    def predicting(self) -> TrunkConfig:
        """A network of this kind that predicts chunks, for a baseline."""
        return self.trunk


@dataclass(frozen=True)
class Features:
    """Encoded observations: a `Condition`.

    Attributes:
        values: (B, O, C) normalised features.
        origin: (B, A) what actions are relative to, physical units, or None.
    """

    values: Tensor
    origin: Tensor | None = None

    def repeat(self, samples: int) -> Self:
        """Each row `samples` times in a row."""
        origin = None if self.origin is None else self.origin.repeat_interleave(samples, dim=0)
        return type(self)(self.values.repeat_interleave(samples, dim=0), origin)


class NetworkPolicy(OffsetActions, Policy):
    """An encoder, a trunk, and the space their actions live in.

    With `relative`, actions are offsets from the latest observation of that key, and each step of the chunk has its
    own statistics: offsets grow along the chunk, and the first ones would otherwise be lost in the noise.
    """

    def __init__(self, config: NetworkConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights, drawn from torch's global generator as usual for modules."""
        super().__init__(spec, config)
        self.normalizer = normalizer
        self.relative = config.relative
        if self.relative is not None:
            check_origin(spec, self.relative)
        self.encoder = ObservationEncoder(
            spec, octaves=config.octaves, points=config.points, origin=config.relative, vision=config.vision
        )
        self.trunk: nn.Module = self.make_trunk(config)
        self.observation_noise, self.point_noise = config.observation_noise, config.point_noise
        self.history_dropout, self.mask_loss = config.history_dropout, config.mask_loss
        self.draws = config.draws

    def make_trunk(self, config: NetworkConfig) -> nn.Module:
        """The network; families that show it something else, or want another answer, override this."""
        return build_trunk(
            config.trunk,
            action_dim=self.spec.action_dim,
            horizon=self.spec.horizon,
            observation_steps=self.spec.observation_steps,
            observation_dim=self.encoder.width,
        )

    def encode(self, observation: Mapping[str, Tensor]) -> Features:
        """Normalised features of B observations, once per control step."""
        return self._features(observation, observation)

    def _features(
        self,
        seen: Mapping[str, Tensor],
        observation: Mapping[str, Tensor],
        views: Mapping[str, View] | None = None,
    ) -> Features:
        """Features of what the network sees; actions are relative to what was really observed."""
        values = self.encoder(seen, self.normalizer, views)
        if self.relative is None:
            return Features(values)
        return Features(values, origin_of(observation[self.relative], self.spec.action_dim).to(values))

    def training_pair(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Features]:
        """Normalised target chunks (B * draws, H, A) and the condition to predict them from."""
        return self._pair(self._disturb(batch.observation, generator), batch, generator)

    def _pair(
        self, seen: Mapping[str, Tensor], batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Features]:
        """The training pair of a batch whose observations have been disturbed."""
        views = self.encoder.draw_views(seen, generator)
        features = self._features(seen, batch.observation, views)
        target = self.normalize_action(batch.action.to(features.values), features)
        if self.draws == 1:
            return target, features
        return target.repeat_interleave(self.draws, dim=0), features.repeat(self.draws)

    def _disturb(self, observation: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
        """What the network is shown in training: noisy, and sometimes without a past."""
        if not self.observation_noise and not self.point_noise and not self.history_dropout:
            return observation
        seen = {}
        for key in self.spec.observation:
            if is_camera(key):
                seen[key] = observation[key]
                continue
            _, scale = self.normalizer.affine(key)
            x = observation[key].to(scale)
            seen[key] = x + self.observation_noise * scale * draw(x.shape, generator, x)
        for key in self.encoder.points if self.point_noise else ():
            _, scale = self.normalizer.affine(key)
            width = self.spec.action_dim
            shift = self.point_noise * scale.mean() * draw((len(seen[key]), 1, width), generator, scale)
            seen[key] = seen[key] + shift.repeat(1, 1, seen[key].shape[-1] // width)
        if self.history_dropout:
            count = len(next(iter(seen.values())))
            forget = torch.rand(count, generator=generator, device=generator.device) < self.history_dropout
            for key, x in seen.items():
                flags = forget.to(x.device).view(-1, *[1] * (x.ndim - 1))
                seen[key] = torch.where(flags, x[:, -1:], x)
        return seen

    def reduce(self, error: Tensor, mask: Tensor) -> Tensor:
        """Mean of element-wise errors (B * draws, H, A); with `mask_loss`, over real actions, (B, H) or so many rows."""
        if not self.mask_loss:
            return error.mean()
        mask = mask.repeat_interleave(len(error) // len(mask), dim=0)
        weight = mask.to(error)[..., None]
        return (error * weight).sum() / (weight.sum() * error.shape[-1]).clamp_min(1)


def draw(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers from the generator's own device, so that a seed means the same on every device."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like)
