"""Implicit Q-learning (arXiv 2110.06169): values of the better actions in the data, without asking about any others.

`V` is an expectile of Q over the actions in the data, Q learns towards `r + gamma m V(s')`; both ask slow copies of the
other, as in the critic that V-GPS (arXiv 2410.13816) released.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from .offline import OfflineConfig, OfflineCritic
from .q_network import VNetwork
from .transitions import Transition

_MOST = 100.0  # weight of one transition in the actor's loss


@dataclass(frozen=True, kw_only=True)
class IQLConfig(OfflineConfig):
    """A critic by expectiles.

    Attributes:
        expectile: tau; 0.5 values the mean of the data's actions, 1 would value the best.
        sharpness: how much more the actor learns from actions that are better than usual.
    """

    target_rate: float = 0.002
    expectile: float = 0.7
    sharpness: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1:
            raise ConfigError(f"expectile must lie in (0, 1), got {self.expectile}; 0.7 is usual")
        if not 0 <= self.sharpness < float("inf"):
            raise ConfigError(f"sharpness must be at least 0 and finite, got {self.sharpness}")


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Mean of `|tau - 1(u < 0)| u^2` over differences u = q - v; above 0.5 it draws v upwards."""
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference.square()).mean()


class IQLCritic(OfflineCritic):
    """A critic by expectiles, with an actor that imitates the better actions of the data."""

    config: IQLConfig

    def __init__(self, config: IQLConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.usual = VNetwork(self.online.encoder.width, config.hidden)
        self.usual_target = copy.deepcopy(self.usual).requires_grad_(False)

    def followers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pairs of a slow network and the one it follows."""
        return [*super().followers(), (self.usual_target, self.usual)]

    def forward(self, batch: Transition, generator: torch.Generator) -> Tensor:
        """Expectile loss of V, squared error of Q, and the actor's weighted log density."""
        batch = self.told(batch, generator)
        views, later_views = self.views(batch.observation, generator), self.views(batch.later, generator)
        data = self.normalize_action(batch.action[:, None], batch.observation)
        with torch.no_grad():
            slow = self.target.encoder(batch.observation, self.normalizer, views)
            worth = self.target.heads(slow, data).amin(dim=0).squeeze(-1)
            ahead = self.usual_target(self.target.encoder(batch.later, self.normalizer, later_views))
            y = batch.reward + batch.discount * ahead
        features = self.online.encoder(batch.observation, self.normalizer, views)
        v = self.usual(features)
        q = self.online.heads(features, data).squeeze(-1)
        value_loss = expectile_loss(worth - v, self.config.expectile)
        error = (q - y).square().mean()
        weight = (self.config.sharpness * (worth - v.detach())).exp().clamp(max=_MOST)
        seen = self.sight(batch.observation, self.normalizer, views)
        actor_loss = -(weight * self.actor.log_density(seen, data).squeeze(-1)).mean()
        self.note(
            batch, q, y, td_loss=error, value=v.mean(), value_loss=value_loss, advantage=(worth - v).mean()
        )
        return error + value_loss + actor_loss
