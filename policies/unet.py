"""Diffusion Policy's conditional U-Net over time (arXiv 2303.04137).

Shapes inside: B batch, C channels, T steps in time. Parameter counts are those of the published network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError
from .convolution import Conv, Upsample
from .embedding import StepEncoder


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The published size by default.

    Attributes:
        channels: width of each level; time is halved between levels.
        kernel: taps of a convolution, odd.
        groups: groups of the normalisation; every width must be a multiple.
        step_width: width of the step features.
        scale: whether the condition scales features, or only shifts them.
    """

    channels: tuple[int, ...] = (256, 512, 1024)
    kernel: int = 5
    groups: int = 8
    step_width: int = 256
    scale: bool = True

    def __post_init__(self) -> None:
        if not self.channels or any(c < 1 or c % self.groups for c in self.channels):
            raise ConfigError(f"channels must be multiples of groups {self.groups}, got {self.channels}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, got {self.kernel}")
        if self.step_width < 4 or self.step_width % 2:
            raise ConfigError(f"step_width must be even and at least 4, got {self.step_width}")


class ConvBlock(nn.Sequential):
    """Convolution, group normalisation, Mish."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        """Kernel and groups come from the configuration."""
        super().__init__(
            Conv(inputs, outputs, config.kernel), nn.GroupNorm(config.groups, outputs), nn.Mish()
        )


class ResidualBlock(nn.Module):
    """Two convolution blocks; the condition scales and shifts the features between them."""

    def __init__(self, inputs: int, outputs: int, condition: int, config: UNetConfig) -> None:
        """A 1x1 convolution carries the input past the blocks where the width changes."""
        super().__init__()
        self.scale = config.scale
        self.first = ConvBlock(inputs, outputs, config)
        self.modulation = nn.Linear(condition, outputs * (2 if config.scale else 1))
        self.second = ConvBlock(outputs, outputs, config)
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, T) and the activated condition (B, D) to (B, C', T)."""
        h = self.first(x)
        modulation = self.modulation(condition)[..., None]
        if self.scale:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, scale, h)  # the plain scale of the published code, not 1 + scale
        else:
            h = h + modulation
        return self.second(h) + self.skip(x)


class Pair(nn.Module):
    """Two residual blocks; the first one changes the width."""

    def __init__(self, inputs: int, outputs: int, condition: int, config: UNetConfig) -> None:
        """Arguments as `ResidualBlock`."""
        super().__init__()
        self.first = ResidualBlock(inputs, outputs, condition, config)
        self.second = ResidualBlock(outputs, outputs, condition, config)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, T) and the activated condition (B, D) to (B, C', T)."""
        return self.second(self.first(x, condition), condition)


class ConditionalUnet1d(nn.Module):
    """Noise (or velocity) of an action chunk, given the step and the observations."""

    def __init__(self, config: UNetConfig, *, action_dim: int, horizon: int, condition_dim: int) -> None:
        """Build for chunks (H, A) and a flat condition of `condition_dim` numbers."""
        super().__init__()
        widths = config.channels
        factor = 2 ** (len(widths) - 1)
        if horizon % factor:
            raise ConfigError(
                f"a U-Net of {len(widths)} levels needs a horizon divisible by {factor}, got {horizon}; "
                f"use {horizon + -horizon % factor} or fewer levels"
            )
        self.step = StepEncoder(config.step_width)
        condition = config.step_width + condition_dim

        def pair(inputs: int, outputs: int) -> Pair:
            return Pair(inputs, outputs, condition, config)

        self.down = nn.ModuleList([pair(i, o) for i, o in zip((action_dim, *widths), widths, strict=False)])
        self.downsample = nn.ModuleList([Conv(w, w, 3, stride=2) for w in widths[:-1]])
        self.middle = pair(widths[-1], widths[-1])
        self.up = nn.ModuleList([pair(2 * i, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)])
        self.upsample = nn.ModuleList([Upsample(w) for w in widths[-2::-1]])
        self.head = nn.Sequential(ConvBlock(widths[0], widths[0], config), Conv(widths[0], action_dim, 1))

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Noised chunks (B, H, A), steps () or (B,), observation features (B, O, C) to (B, H, A)."""
        features = self.step(step)
        if features.ndim == 1:
            features = features.expand(len(x), -1)
        # Every block activates the condition alike, so it is done once here.
        c = F.mish(torch.cat([features, condition.flatten(1)], dim=1))
        h = x.transpose(1, 2)
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            h = blocks(h, c)
            skips.append(h)  # that of level 0 is never used, as published
            if level < len(self.downsample):
                h = self.downsample[level](h)
        h = self.middle(h, c)
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            h = upsample(blocks(torch.cat([h, skips.pop()], dim=1), c))
        return self.head(h).transpose(1, 2)
