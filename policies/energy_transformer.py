"""The energy transformer of EBT-Policy (arXiv 2510.27545): observations and a whole action chunk to one number.

There is no step input: one landscape serves the whole descent. Attention is written out as products and a softmax,
since training differentiates a gradient, and fused attention has no second derivative.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from .embedding import sinusoidal
from .transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class EnergyTransformerConfig:
    """The published size by default.

    Attributes:
        width: of a token.
        layers: blocks over the action tokens.
        observation_layers: blocks over the observation tokens.
        heads: attention heads; must divide width.
        attention_dropout: dropout on attention weights.
        causal: action i sees observations up to its own time; without, all of them.
        zero_head: start with an energy of zero everywhere; the last layer then learns first.
    """

    width: int = 256
    layers: int = 8
    observation_layers: int = 8
    heads: int = 4
    attention_dropout: float = 0.3
    causal: bool = True
    zero_head: bool = False

    def __post_init__(self) -> None:
        if self.layers < 1 or self.observation_layers < 0:
            raise ConfigError(
                "layers must be at least 1 and observation_layers at least 0, "
                f"got {self.layers} and {self.observation_layers}"
            )
        if self.heads < 1 or self.width < 4 or self.width % 2 or self.width % self.heads:
            raise ConfigError(
                f"width must be even, at least 4 and a multiple of heads, got {self.width} and {self.heads} heads"
            )
        if not 0 <= self.attention_dropout < 1:
            raise ConfigError(f"attention_dropout must lie in [0, 1), got {self.attention_dropout}")

    def predicting(self) -> TransformerConfig:
        """The network of the same width, depth and heads that predicts chunks."""
        return TransformerConfig(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            attention_dropout=self.attention_dropout,
            causal=self.causal,
        )


def frame_mask(horizon: int, observation_steps: int, start: int) -> Tensor:
    """(H, O) bool: whether action i, due at `start + i`, may see frame j, seen at `j - (O - 1)`."""
    action = start + torch.arange(horizon)[:, None]
    return action >= torch.arange(1 - observation_steps, 1)


class Norm(nn.RMSNorm):
    """Root-mean-square norm that stays in float32 under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W), in the precision of the weights."""
        return super().forward(x.to(self.weight))


class Attention(nn.Module):
    """Scaled dot products with normalised queries and keys."""

    def __init__(self, config: EnergyTransformerConfig) -> None:
        """Width, heads and dropout come from the configuration."""
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.query_norm = Norm(config.width // config.heads)
        self.key_norm = Norm(config.width // config.heads)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, N, W) attend to tokens (B, M, W) where `mask` (N, M) is true."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.query_norm(q), self.key_norm(k)
        weight = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            weight = weight.masked_fill(~mask, -torch.inf)
        out = self.dropout(weight.softmax(dim=-1)).to(v) @ v
        return self.out(out.transpose(1, 2).flatten(2))


def two_layers(inputs: int, hidden: int, outputs: int, *, bias: bool = True) -> nn.Sequential:
    """Two linear layers with a smooth activation between."""
    last = nn.Linear(hidden, outputs, bias=bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(approximate="tanh"), last)


class _ObservationBlock(nn.Module):
    def __init__(self, config: EnergyTransformerConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([Norm(config.width) for _ in range(2)])
        self.attention = Attention(config)
        self.feed = two_layers(config.width, config.width, config.width)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        u = self.norms[0](h)
        h = h + self.attention(u, u, mask)
        return h + self.feed(self.norms[1](h))


class _ActionBlock(nn.Module):
    def __init__(self, config: EnergyTransformerConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([Norm(config.width) for _ in range(3)])
        self.attention = Attention(config)
        self.cross = Attention(config)
        self.feed = two_layers(config.width, config.width, config.width)

    def forward(self, h: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        u = self.norms[0](h)
        h = h + self.attention(u, u)
        h = h + self.cross(self.norms[1](h), memory, mask)
        return h + self.feed(self.norms[2](h))


class EnergyTransformer(nn.Module):
    """Energy of an action chunk, given the observations."""

    observation_mask: Tensor
    action_mask: Tensor | None
    action_position: Tensor

    def __init__(
        self,
        config: EnergyTransformerConfig,
        *,
        action_dim: int,
        horizon: int,
        observation_steps: int,
        observation_dim: int,
        start: int,
    ) -> None:
        """Build for chunks (H, A) that begin `start` steps from now, and observation features (O, C)."""
        super().__init__()
        width = config.width
        self.observation_in = nn.Linear(observation_dim, width)
        self.observation_position = nn.Parameter(torch.zeros(1, observation_steps, width))
        self.observation_blocks = nn.ModuleList(
            [_ObservationBlock(config) for _ in range(config.observation_layers)]
        )
        self.action_in = two_layers(action_dim, width, width)
        self.action_blocks = nn.ModuleList([_ActionBlock(config) for _ in range(config.layers)])
        self.norm = Norm(width)
        # A constant in the energy changes no gradient, hence no bias.
        self.head = two_layers(width, width, action_dim, bias=False)
        if config.zero_head:
            nn.init.zeros_(self.head[-1].get_parameter("weight"))
        steps = torch.arange(observation_steps)
        seen = frame_mask(horizon, observation_steps, start) if config.causal else None
        self.register_buffer("observation_mask", steps[:, None] >= steps, persistent=False)
        self.register_buffer("action_mask", seen, persistent=False)
        self.register_buffer("action_position", sinusoidal(torch.arange(horizon), width), persistent=False)

    def observe(self, features: Tensor) -> Tensor:
        """Observation features (B, O, C) to what `forward` reads of them, (B, O, W); once for all steps."""
        h = self.observation_in(features) + self.observation_position
        for block in self.observation_blocks:
            h = block(h, self.observation_mask)
        return h

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Chunks (B, H, A) and observed tokens (B, O, W) to energies (B,), means over all outputs."""
        h = self.action_in(x) + self.action_position
        for block in self.action_blocks:
            h = block(h, memory, self.action_mask)
        return self.head(self.norm(h)).to(x).mean(dim=(1, 2))
