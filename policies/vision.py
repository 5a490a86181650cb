"""Camera frames to feature vectors, one per camera and observation step.

uint8 frames are cropped, brought to the numbers their network reads, encoded to a feature map, pooled, and projected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

import torch
from einops import rearrange
from torch import Tensor, nn

from ..data.errors import ConfigError, SpecError
from ..data.spec import Spec
from .crop import View, centre_view, crop, crop_size, in_frame, random_view, relight
from .pooling import PoolingConfig, SpatialSoftmax, build_pooling
from .pretrained_vision import PretrainedConfig
from .resnet import ResNetConfig
from .vit import ViTConfig

ImageEncoderConfig = ResNetConfig | ViTConfig | PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """How a policy sees; without cameras in its observation it means nothing.

    Attributes:
        encoder: from a frame to a feature map.
        pooling: from a feature map to a vector.
        crop: share of each side that is kept: a random part in training, the centre otherwise; 1 keeps all.
        features: numbers per camera and step that the trunk sees; 0 for those of the pooling as they are.
        shared: whether all cameras share one encoder; they must then have the same size.
        jitter: brightness, contrast and saturation are multiplied by 1 - jitter..1 + jitter in training.
    """

    encoder: ImageEncoderConfig = field(default_factory=ResNetConfig)
    pooling: PoolingConfig = field(default_factory=SpatialSoftmax)
    crop: float = 76 / 84
    features: int = 64
    shared: bool = False
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ConfigError(
                f"crop must lie in (0, 1], got {self.crop}; 0.905 keeps 76 of 84 px, 1 keeps all"
            )
        if self.features < 0:
            raise ConfigError(f"features must be at least 0, got {self.features}")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter must lie in [0, 1), got {self.jitter}; 0.3 is usual")


def is_camera(key: str) -> bool:
    """Whether an observation key holds camera frames."""
    return key.startswith("image.")


class VisionEncoder(nn.Module):
    """Frames of every camera of a spec to features side by side, in the order of the spec.

    Attributes:
        cameras: the observation keys read.
        width: features per observation step.
    """

    def __init__(self, config: VisionConfig, spec: Spec) -> None:
        """Take the cameras and their sizes from the spec.

        Raises:
            SpecError: for a camera whose frames are no colour images in uint8, or cameras that cannot share weights.
        """
        super().__init__()
        self.config = config
        self.cameras = tuple(filter(is_camera, spec.observation))
        self.frames = {key: frame_size(key, spec) for key in self.cameras}
        if config.shared and len(set(self.frames.values())) > 1:
            raise SpecError(
                f"cameras that share an encoder must have one size, got {self.frames}; use vision.shared=false"
            )
        count = 1 if config.shared else len(self.cameras)
        self.eyes = nn.ModuleList(_Eye(config, self.frames[key]) for key in self.cameras[:count])
        self.width = len(self.cameras) * self._eye(0).width

    def _eye(self, number: int) -> "_Eye":
        eye = self.eyes[0 if self.config.shared else number]
        assert isinstance(eye, _Eye)
        return eye

    def draw_views(self, windows: int, generator: torch.Generator) -> dict[str, View]:
        """A random view per camera of so many training windows."""
        return {
            key: random_view(
                windows, frame, crop_size(frame, self.config.crop), generator, jitter=self.config.jitter
            )
            for key, frame in self.frames.items()
        }

    def forward(self, observation: Mapping[str, Tensor], views: Mapping[str, View] | None = None) -> Tensor:
        """Key -> uint8 (B, O, H, W, 3) to (B, O, width); the centre of each frame unless views are given."""
        parts = []
        for number, key in enumerate(self.cameras):
            frames = checked_frames(key, observation[key])
            eye = self._eye(number)
            view = (views or {}).get(key) or centre_view(len(frames), self.frames[key], eye.size)
            parts.append(eye(frames, view))
        return torch.cat(parts, dim=-1)


class _Eye(nn.Module):
    """One encoder with its pooling and projection."""

    def __init__(self, config: VisionConfig, frame: tuple[int, int]) -> None:
        super().__init__()
        self.frame, self.size = frame, crop_size(frame, config.crop)
        self.encoder, channels = build_image_encoder(config.encoder, self.size)
        self.keypoints, pooled = build_pooling(config.pooling, channels)
        self.width = config.features or pooled
        self.project = nn.Linear(pooled, config.features) if config.features else nn.Identity()

    def forward(self, frames: Tensor, view: View) -> Tensor:
        """(B, O, H, W, 3) to (B, O, width)."""
        device = next(self.parameters()).device
        seen = crop(frames.to(device), view.corner, self.size).float() / 255
        if view.light is not None:
            seen = relight(seen, view.light)
        steps = seen.shape[1]
        features = self.encoder(rearrange(seen, "b o h w c -> (b o) c h w"))
        if self.keypoints is None:
            pooled = features.float().mean(dim=(2, 3))
        else:
            points = rearrange(self.keypoints(features), "(b o) k xy -> b o k xy", o=steps)
            pooled = in_frame(points, view.corner, self.size, self.frame).flatten(0, 1).flatten(1)
        return rearrange(self.project(pooled), "(b o) c -> b o c", o=steps).float()


def build_image_encoder(config: ImageEncoderConfig, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """A network from images (N, 3, h, w) of 0..1 to maps (N, channels, ...), and its channels.

    Args:
        config: family and size.
        size: h and w.
    """
    match config:
        case ResNetConfig():
            from .resnet import ResNet

            encoder = ResNet(config)
        case ViTConfig():
            from .vit import ViT

            encoder = ViT(config, size)
        case PretrainedConfig():
            from .pretrained_vision import PretrainedVision

            encoder = PretrainedVision(config)
        case _:
            assert_never(config)
    return encoder, encoder.channels


def frame_size(key: str, spec: Spec) -> tuple[int, int]:
    """Height and width of a camera's frames.

    Raises:
        SpecError: if they are no colour images in uint8.
    """
    field = spec.observation[key]
    if len(field.shape) != 3 or field.shape[2] != 3 or field.dtype != "uint8":
        raise SpecError(
            f"observation {key!r} is {field.dtype}{list(field.shape)}; cameras give uint8 (height, width, 3)"
        )
    return field.shape[0], field.shape[1]


def checked_frames(key: str, frames: Tensor) -> Tensor:
    """The frames observed under this key; raise unless they are uint8."""
    if frames.dtype != torch.uint8:
        raise SpecError(
            f"observation {key!r} holds {frames.dtype}; frames are uint8, 0 to 255, as cameras give them"
        )
    return frames
