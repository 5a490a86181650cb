"""A small vision transformer (arXiv 2010.11929): patches of the image as tokens, before a few pre-norm blocks."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Patch and width; the default has 0.9 million parameters.

    Attributes:
        patch: side of a patch in px; what is left of the image after the crop is a multiple of it.
        width: numbers per token.
        layers: blocks.
        heads: attention heads.
    """

    patch: int = 8
    width: int = 128
    layers: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("patch", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ConfigError(f"width must be a multiple of heads, got {self.width} and {self.heads}")


class ViT(nn.Module):
    """Images (N, 3, h, w) of one size to a feature map (N, width, h / patch, w / patch).

    Attributes:
        channels: of the feature map.
    """

    def __init__(self, config: ViTConfig, size: tuple[int, int]) -> None:
        """Build with fresh weights for images of `size`, height and width."""
        super().__init__()
        if size[0] % config.patch or size[1] % config.patch:
            raise ConfigError(
                f"a ViT cuts images into patches of {config.patch} px, and {size[0]} x {size[1]} px, the size after "
                "the crop, is no multiple of it; change vision.crop or vision.encoder.patch"
            )
        self.channels = config.width
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        count = (size[0] // config.patch) * (size[1] // config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(count, config.width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """The tokens of the last block, where their patches were."""
        grid = self.patches(x)
        tokens = grid.flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).transpose(1, 2).unflatten(2, grid.shape[2:])


class _Block(nn.Module):
    """Every token looks at all tokens, then at itself."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.query_key_value(self.attention_norm(tokens))
        query, key, value = rearrange(parts, "n t (three h d) -> three n h t d", three=3, h=self.heads)
        seen = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(rearrange(seen, "n h t d -> n t (h d)"))
        return tokens + self.mlp(self.mlp_norm(tokens))
