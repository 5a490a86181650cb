"""A residual network over the flat chunk: the fastest trunk where observations are few numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError
from .embedding import periodic


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """A residual MLP.

    Attributes:
        width: of the residual stream.
        depth: residual blocks.
        expansion: hidden units of a block, as a multiple of width.
        dropout: inside every block.
        step_width: width of the step features.
        modulation: let the condition scale and shift every block's input, as well as enter at the bottom.
    """

    width: int = 512
    depth: int = 3
    expansion: int = 2
    dropout: float = 0.0
    step_width: int = 64
    modulation: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "expansion"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.step_width < 4 or self.step_width % 2:
            raise ConfigError(f"step_width must be even and at least 4, got {self.step_width}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")


class PreciseLinear(nn.Linear):
    """A layer that stays in float32 under autocast: bfloat16 would round positions to about half a percent."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class Block(nn.Module):
    """Normalise, modulate, two layers, add; the identity at the start of training."""

    def __init__(self, config: MLPConfig) -> None:
        """Width, expansion and dropout come from the configuration."""
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, config.width * config.expansion)
        self.narrow = nn.Linear(config.width * config.expansion, config.width)
        self.modulation = nn.Linear(config.width, 2 * config.width) if config.modulation else None
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor | None) -> Tensor:
        """(B, W) features and (B, W) or (1, W) condition to (B, W)."""
        u = self.norm(h)
        if self.modulation is not None:
            scale, shift = self.modulation(condition).chunk(2, dim=-1)
            u = torch.addcmul(shift + u, scale, u)
        return h + self.narrow(self.dropout(F.silu(self.widen(u))))


class ResidualMLP(nn.Module):
    """Noise (or velocity) of an action chunk, given the step and the observations."""

    def __init__(self, config: MLPConfig, *, action_dim: int, horizon: int, condition_dim: int) -> None:
        """Build for chunks (H, A) and a flat condition of `condition_dim` numbers."""
        super().__init__()
        self.step_width = config.step_width
        condition = condition_dim + config.step_width
        self.inlet = PreciseLinear(horizon * action_dim + condition, config.width)
        self.condition = nn.Linear(condition, config.width) if config.modulation else None
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.outlet = PreciseLinear(config.width, horizon * action_dim)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Noised chunks (B, H, A), steps () or (B,), observation features (B, O, C) to (B, H, A)."""
        features = periodic(step.reshape(-1), self.step_width).expand(len(x), -1)
        c = torch.cat([condition.flatten(1), features], dim=1)
        h = self.inlet(torch.cat([x.flatten(1), c], dim=1))
        modulation = None if self.condition is None else F.silu(self.condition(c))
        for block in self.blocks:
            h = block(h, modulation)
        return self.outlet(self.norm(h)).view_as(x)
