"""Diffusion Policy's transformer (arXiv 2303.04137): action tokens attend to a step token and observation tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from .embedding import sinusoidal


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The published size by default.

    Attributes:
        width: of a token.
        layers: decoder layers.
        heads: attention heads; must divide width.
        attention_dropout: dropout inside the layers.
        embedding_dropout: dropout on tokens before the layers.
        condition_layers: encoder layers over the condition tokens; 0 for a two-layer network per token.
        causal: action i sees actions up to i and observations up to its own time; without, all of them.
    """

    width: int = 256
    layers: int = 8
    heads: int = 4
    attention_dropout: float = 0.3
    embedding_dropout: float = 0.0
    condition_layers: int = 0
    causal: bool = True

    def __post_init__(self) -> None:
        if self.layers < 1 or self.condition_layers < 0:
            raise ConfigError(
                f"layers must be at least 1 and condition_layers at least 0, got {self.layers} and {self.condition_layers}"
            )
        if self.heads < 1 or self.width < 4 or self.width % 2 or self.width % self.heads:
            raise ConfigError(
                f"width must be even, at least 4 and a multiple of heads, got {self.width} and {self.heads} heads"
            )
        for name in ("attention_dropout", "embedding_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


def memory_mask(horizon: int, observation_steps: int) -> Tensor:
    """(H, 1 + O) additive mask: action t sees the step token 0 and observation tokens s <= t + 1."""
    t, s = torch.arange(horizon)[:, None], torch.arange(1 + observation_steps)
    return torch.zeros(horizon, 1 + observation_steps).masked_fill(t < s - 1, -torch.inf)


class ActionTransformer(nn.Module):
    """Noise (or velocity) of an action chunk, given the step and the observations."""

    memory_mask: Tensor | None
    self_mask: Tensor | None

    def __init__(
        self,
        config: TransformerConfig,
        *,
        action_dim: int,
        horizon: int,
        observation_steps: int,
        observation_dim: int,
    ) -> None:
        """Build for chunks (H, A) and observation features (O, C)."""
        super().__init__()
        width = config.width
        self.width = width
        self.action_in = nn.Linear(action_dim, width)
        self.action_position = nn.Parameter(torch.zeros(1, horizon, width))
        self.observation_in = nn.Linear(observation_dim, width)
        self.memory_position = nn.Parameter(torch.zeros(1, 1 + observation_steps, width))
        self.dropout = nn.Dropout(config.embedding_dropout)
        if config.condition_layers:
            layer = nn.TransformerEncoderLayer(width, **_layer_options(config))
            self.memory = nn.TransformerEncoder(layer, config.condition_layers, enable_nested_tensor=False)
        else:
            self.memory = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        layer = nn.TransformerDecoderLayer(width, **_layer_options(config))
        self.decoder = nn.TransformerDecoder(layer, config.layers)
        self.norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, action_dim)
        causal = nn.Transformer.generate_square_subsequent_mask(horizon) if config.causal else None
        seen = memory_mask(horizon, observation_steps) if config.causal else None
        self.register_buffer("self_mask", causal, persistent=False)
        self.register_buffer("memory_mask", seen, persistent=False)
        self.apply(_initialise)
        for position in (self.action_position, self.memory_position):
            nn.init.normal_(position, std=0.02)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Noised chunks (B, H, A), steps () or (B,), observation features (B, O, C) to (B, H, A)."""
        token = sinusoidal(step.reshape(-1), self.width).unsqueeze(1).expand(len(x), 1, -1)
        memory = torch.cat([token, self.observation_in(condition)], dim=1) + self.memory_position
        memory = self.memory(self.dropout(memory))
        h = self.dropout(self.action_in(x) + self.action_position)
        h = self.decoder(h, memory, tgt_mask=self.self_mask, memory_mask=self.memory_mask)
        return self.action_out(self.norm(h))


def _layer_options(config: TransformerConfig) -> dict:
    return {
        "nhead": config.heads,
        "dim_feedforward": 4 * config.width,
        "dropout": config.attention_dropout,
        "activation": "gelu",
        "batch_first": True,
        "norm_first": True,
    }


def _initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0, as published."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
