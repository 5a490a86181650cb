"""ResNet (arXiv 1512.03385) with group normalisation in place of batch normalisation, as Diffusion Policy uses it.

Statistics of a batch would belong to the raw weights, and policies act with averaged ones (EMA). ResNet-18 is width 64
with two blocks per stage; without its classifier it has 11,176,512 parameters, as with batch normalisation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A residual network; the default is ResNet-18.

    Attributes:
        width: channels of the first stage; each later stage doubles them.
        blocks: residual blocks per stage; every stage but the first halves height and width, after a stem that
            quarters them.
        group: channels per normalised group; narrower layers are one group.
    """

    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    group: int = 16

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise ConfigError(
                f"blocks must name at least 1 block for every stage, got {self.blocks}; ResNet-18 has (2, 2, 2, 2)"
            )
        if self.group < 1:
            raise ConfigError(f"group must be at least 1 channel, got {self.group}")
        if self.width < 1 or (self.width > self.group and self.width % self.group):
            raise ConfigError(
                f"width must be at most {self.group} or a multiple of it, got {self.width}; "
                "channels are normalised in groups of `group`"
            )


class ResNet(nn.Module):
    """Images (N, 3, h, w) to a feature map (N, channels, h / 2^(1 + stages), w / ...), rounded up.

    Attributes:
        channels: of the feature map.
    """

    def __init__(self, config: ResNetConfig) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.channels = config.width * 2 ** (len(config.blocks) - 1)
        self.stem = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.norm = _norm(config.width, config.group)
        blocks, wide = [], config.width
        for stage, count in enumerate(config.blocks):
            for number in range(count):
                stride = 2 if stage and not number else 1
                out = config.width * 2**stage
                blocks.append(_Block(wide, out, stride, config.group))
                wide = out
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The map of the last stage."""
        x = F.relu(self.norm(self.stem(x.contiguous(memory_format=torch.channels_last))))
        return self.blocks(F.max_pool2d(x, 3, stride=2, padding=1))


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, width: int, out: int, stride: int, group: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride=stride, padding=1, bias=False)
        self.first_norm = _norm(out, group)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = _norm(out, group)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width, out, 1, stride=stride, bias=False), _norm(out, group)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def _norm(channels: int, group: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // group), channels)
