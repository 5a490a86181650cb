"""Pictures to tokens: a single layer of patches, or a SigLIP transformer with a connector."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.errors import ConfigError
from .images import Padding, prepare


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """One linear layer over patches, with learned positions; for small pictures and policies.

    Attributes:
        size: px; pictures of other sizes are scaled.
        patch: px, the side of a patch.
        padding: where pictures that are not square are filled up.
    """

    size: int = 32
    patch: int = 8
    padding: Padding = "both"

    def __post_init__(self) -> None:
        _check_patches(self.size, self.patch, self.padding)


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """A SigLIP vision transformer (arXiv 2303.15343) and a linear connector to the prefix.

    Attributes:
        size: px.
        patch: px, the side of a patch.
        padding: where pictures that are not square are filled up.
        width: of a patch's token.
        hidden: of the feed-forward parts.
        layers: number of layers.
        heads: attention heads; must divide width.
        shuffle: side of the square of neighbouring patches that become one token; 1 keeps every patch.
        bias: whether the connector has one.
        scaled: multiply tokens by the root of their width, as SmolVLA does.
    """

    size: int = 224
    patch: int = 14
    padding: Padding = "both"
    width: int = 1152
    hidden: int = 4304
    layers: int = 27
    heads: int = 16
    shuffle: int = 1
    bias: bool = True
    scaled: bool = False

    def __post_init__(self) -> None:
        _check_patches(self.size, self.patch, self.padding)
        if self.shuffle < 1 or (self.size // self.patch) % self.shuffle:
            raise ConfigError(
                f"shuffle must divide the {self.size // self.patch} patches of a side, got {self.shuffle}"
            )
        if self.heads < 1 or self.width % self.heads or self.layers < 1 or self.hidden < 1:
            raise ConfigError(
                f"width must be a multiple of heads, layers and hidden at least 1, got width {self.width}, "
                f"{self.heads} heads, {self.layers} layers, hidden {self.hidden}"
            )


VisionConfig = PatchConfig | SiglipConfig


def _check_patches(size: int, patch: int, padding: str) -> None:
    if patch < 1 or size < patch or size % patch:
        raise ConfigError(f"size must be a multiple of patch, got {size} and {patch}")
    if padding not in ("left_top", "both"):
        raise ConfigError(f"padding must be left_top or both, got {padding!r}")


def build_vision(config: VisionConfig, width: int) -> "Patches | Siglip":
    """The network that makes tokens of `width` of pictures (N, H, W, 3) uint8."""
    match config:
        case PatchConfig():
            return Patches(config, width)
        case SiglipConfig():
            return Siglip(config, width)
        case _:
            assert_never(config)


class Patches(nn.Module):
    """A convolution over patches.

    Attributes:
        tokens: per picture.
    """

    def __init__(self, config: PatchConfig, width: int) -> None:
        """Positions start larger than what patches hold, and so tell them apart from the first update on."""
        super().__init__()
        self.config = config
        self.tokens = (config.size // config.patch) ** 2
        self.patches = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.randn(self.tokens, width))

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, tokens, width)."""
        x = self.patches(prepare(images, self.config.size, self.config.padding))
        return x.flatten(2).transpose(1, 2) + self.positions


class Siglip(nn.Module):
    """Patches, pre-norm layers with full attention, a norm, neighbours joined, a linear connector.

    Attributes:
        tokens: per picture.
    """

    def __init__(self, config: SiglipConfig, width: int) -> None:
        """Tokens of `width` come out."""
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.tokens = (side // config.shuffle) ** 2
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(side**2, config.width))
        self.layers = nn.ModuleList([SiglipLayer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.connector = nn.Linear(config.width * config.shuffle**2, width, bias=config.bias)
        self.scale = width**0.5 if config.scaled else 1.0

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, tokens, width)."""
        x = prepare(images, self.config.size, self.config.padding).to(self.patches.weight.dtype)
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.connector(joined(self.norm(x), self.config.shuffle)) * self.scale


class SiglipLayer(nn.Module):
    """LayerNorm, attention, LayerNorm, two-layer network with GELU; all with biases."""

    def __init__(self, config: SiglipConfig) -> None:
        """Width, heads and hidden units come from the configuration."""
        super().__init__()
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(config.width, eps=1e-6)
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, config.width)
        self.v = nn.Linear(config.width, config.width)
        self.o = nn.Linear(config.width, config.width)
        self.norm_mlp = nn.LayerNorm(config.width, eps=1e-6)
        self.widen = nn.Linear(config.width, config.hidden)
        self.narrow = nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, patches, width) to the same shape."""
        h = self.norm_attention(x)
        q, k, v = (
            project(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm_mlp(x)), approximate="tanh"))


def joined(x: Tensor, side: int) -> Tensor:
    """Tokens (N, R * R, W) of a square of patches to (N, (R / side)^2, side^2 W): each holds side x side neighbours."""
    if side == 1:
        return x
    rows = round(x.shape[1] ** 0.5)
    x = x.unflatten(1, (rows // side, side, rows // side, side))
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
