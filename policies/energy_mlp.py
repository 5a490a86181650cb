"""A residual network over the flat chunk with one number as its output: the energy where observations are few."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .mlp import Block, MLPConfig, PreciseLinear


@dataclass(frozen=True, kw_only=True)
class EnergyMLPConfig:
    """A residual MLP; every layer is smooth, since training differentiates its gradient.

    Attributes:
        width: of the residual stream.
        depth: residual blocks.
        expansion: hidden units of a block, as a multiple of width.
        dropout: inside every block.
        zero_head: start with an energy of zero everywhere; the last layer then learns first.
    """

    width: int = 512
    depth: int = 3
    expansion: int = 2
    dropout: float = 0.0
    zero_head: bool = False

    def __post_init__(self) -> None:
        self.predicting()  # raises for an impossible size

    def predicting(self) -> MLPConfig:
        """The network of the same size that predicts chunks; its blocks are the same."""
        return MLPConfig(width=self.width, depth=self.depth, expansion=self.expansion, dropout=self.dropout)


class EnergyMLP(nn.Module):
    """Energy of an action chunk, given the observations."""

    def __init__(
        self,
        config: EnergyMLPConfig,
        *,
        action_dim: int,
        horizon: int,
        observation_steps: int,
        observation_dim: int,
    ) -> None:
        """Build for chunks (H, A) and observation features (O, C)."""
        super().__init__()
        self.action_in = PreciseLinear(horizon * action_dim, config.width)
        self.observation_in = PreciseLinear(observation_steps * observation_dim, config.width)
        self.blocks = nn.ModuleList([Block(config.predicting()) for _ in range(config.depth)])
        # A constant in the energy changes no gradient, hence no bias.
        self.head = PreciseLinear(config.width, 1, bias=False)
        if config.zero_head:
            nn.init.zeros_(self.head.weight)

    def observe(self, features: Tensor) -> Tensor:
        """Observation features (B, O, C) to what `forward` reads of them, (B, 1, W); once for all steps."""
        return self.observation_in(features.flatten(1)).unsqueeze(1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Chunks (B, H, A) and observed features (B, 1, W) to energies (B,)."""
        # No norm before the head: how far a chunk is from any action shows in its length.
        h = self.action_in(x.flatten(1)) + memory[:, 0]
        for block in self.blocks:
            h = block(h, None)
        return self.head(F.silu(h)).squeeze(1)
