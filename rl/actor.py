"""A tanh-Gaussian actor, as in soft actor-critic (arXiv 1801.01290): what a critic thinks worth trying.

It proposes actions for the critic to learn about, and is no policy to run on a robot.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..policies.network import draw
from .q_network import layers

_LOG_STD = (-5.0, 2.0)


class Actor(nn.Module):
    """Normalised actions in (-1, 1) for states, and how likely they are."""

    def __init__(self, state: int, action: int, hidden: Sequence[int]) -> None:
        """F inputs, D outputs and the widths of the hidden layers."""
        super().__init__()
        self.net = nn.Sequential(*layers(state, hidden, 2 * action))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, F) to mean and log standard deviation (B, D) before the tanh."""
        mean, log_std = self.net(state).chunk(2, dim=-1)
        return mean, log_std.clamp(*_LOG_STD)

    def sample(self, state: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Actions (B, count, D) and their log densities (B, count), both with gradients."""
        mean, log_std = (part[:, None] for part in self(state))
        noise = draw((len(state), count, mean.shape[-1]), generator, mean)
        u = mean + log_std.exp() * noise
        return u.tanh(), _log_density(u, noise, log_std)

    def log_density(self, state: Tensor, action: Tensor) -> Tensor:
        """Log densities (B, K) of actions (B, K, D) inside (-1, 1)."""
        mean, log_std = (part[:, None] for part in self(state))
        u = action.atanh()
        return _log_density(u, (u - mean) / log_std.exp(), log_std)


def _log_density(u: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Of tanh u: the normal density of u over the slope of tanh, which is 4 / (e^u + e^-u)^2."""
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return (normal - slope).sum(dim=-1)
