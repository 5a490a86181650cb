"""Cal-QL (arXiv 2303.05479): conservative Q-learning that never ranks the data below what it really returned.

Terms are those of the critic that V-GPS (arXiv 2410.13816) released: the greatest of n next values as the target, n
uniform actions and n of the actor at each of two states as rivals of the action in the data, importance weights. The
actor's draws at the next state serve both the target and as rivals.
Shapes: E critics, B transitions, n samples, D numbers of an action.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from .offline import OfflineConfig, OfflineCritic
from .transitions import Transition


@dataclass(frozen=True, kw_only=True)
class CalQLConfig(OfflineConfig):
    """A conservative critic.

    Attributes:
        alpha: weight of the regulariser; 0 is Q-learning with an actor.
        samples: n, actions per source.
        calibrated: bound values of the actor's actions by the return of the data; otherwise this is plain CQL.
        importance: weigh sampled actions by how likely they were; otherwise the action in the data joins them.
        temperature: of the actor's entropy, where it begins.
    """

    alpha: float = 5.0
    samples: int = 4
    calibrated: bool = True
    importance: bool = True
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"alpha must be at least 0 and finite, got {self.alpha}; 5 is usual")
        if self.samples < 1:
            raise ConfigError(f"samples must be at least 1, got {self.samples}")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature must be positive and finite, got {self.temperature}")


@dataclass(frozen=True)
class Rivals:
    """Values of sampled actions (..., n) at the state of the data, and their log densities.

    Attributes:
        uniform: values of uniform actions.
        actor: values of the actor's.
        uniform_density: log density of the former, one number.
        actor_density: (..., n) log densities of the latter.
    """

    uniform: Tensor
    actor: Tensor
    uniform_density: float
    actor_density: Tensor


def td_target(reward: Tensor, discount: Tensor, ahead: Tensor) -> Tensor:
    """`y = r + gamma m max_j min_e Q_e(s', a'_j)` (B,), from next values (E, B, n)."""
    return reward + discount * ahead.amin(dim=0).amax(dim=-1)


def bound_rate(actor: Tensor, returns: Tensor) -> Tensor:
    """Share of the actor's actions, values (..., B, n), that are worth less than the data's returns (B,)."""
    return (actor < returns[..., None]).float().mean()


def terms(rivals: Rivals, returns: Tensor | None) -> Tensor:
    """`Q - log density` (..., n of all sources), the uniform actions first.

    Args:
        rivals: what was sampled.
        returns: (B,) Monte-Carlo returns that bound the values of the actor's actions from below; None bounds nothing.
    """
    uniform = rivals.uniform - rivals.uniform_density
    return torch.cat([uniform, _bounded(rivals.actor, returns) - rivals.actor_density], dim=-1)


def conservative_gap(
    q_data: Tensor, rivals: Rivals, returns: Tensor | None, *, importance: bool = True
) -> Tensor:
    """How far sampled actions seem better than those of the data, (...,); the regulariser before its mean.

    Args:
        q_data: (...,) values of the actions in the data.
        rivals: what was sampled at the same states.
        returns: see `terms`.
        importance: weigh by density; otherwise the data's action is one of N + 1 equal ones.
    """
    if importance:
        return terms(rivals, returns).logsumexp(dim=-1) - q_data
    everyone = torch.cat([rivals.uniform, _bounded(rivals.actor, returns), q_data[..., None]], dim=-1)
    return everyone.logsumexp(dim=-1) - math.log(everyone.shape[-1]) - q_data


def _bounded(values: Tensor, returns: Tensor | None) -> Tensor:
    if returns is None:
        return values
    floor = returns[..., None]
    return torch.where(values < floor, floor, values)  # no gradient where the return stands in


class CalQLCritic(OfflineCritic):
    """A calibrated conservative critic."""

    config: CalQLConfig

    def __init__(self, config: CalQLConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def forward(self, batch: Transition, generator: torch.Generator) -> Tensor:
        """Squared TD error, the regulariser, the actor's loss and its temperature's."""
        batch = self.told(batch, generator)
        n = self.config.samples
        views = self.views(batch.observation, generator)
        seen = self.sight(batch.observation, self.normalizer, views)
        here, here_density = self.actor.sample(seen, n, generator)
        there, there_density, y = self._ahead(batch, generator)
        uniform = 2 * torch.rand(here.shape, generator=generator, device=generator.device).to(here) - 1
        data = self.normalize_action(batch.action[:, None], batch.observation)
        features = self.online.encoder(batch.observation, self.normalizer, views)
        asked = torch.cat([data, uniform, here.detach(), there], dim=1)
        q_data, q_uniform, q_actor = self.online.heads(features, asked).split([1, n, 2 * n], dim=-1)
        q_data = q_data.squeeze(-1)
        densities = torch.cat([here_density.detach(), there_density], dim=1)
        rivals = Rivals(q_uniform, q_actor, self.width * math.log(0.5), densities)
        returns = batch.returns if self.config.calibrated else None
        gap = conservative_gap(q_data, rivals, returns, importance=self.config.importance).mean()
        error = (q_data - y).square().mean()
        self.note(
            batch,
            q_data,
            y,
            td_loss=error,
            conservative_gap=gap,
            bound_rate=bound_rate(q_actor, batch.returns),
            actor_entropy=-here_density.mean(),
            temperature=self.log_temperature.exp(),
        )
        return error + self.config.alpha * gap + self._actor_loss(features, here[:, :1], here_density[:, :1])

    @torch.no_grad()
    def _ahead(self, batch: Transition, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The actor's next actions (B, n, D), their log densities (B, n), and the targets (B,) they give."""
        views = self.views(batch.later, generator)
        seen = self.sight(batch.later, self.normalizer, views)
        there, density = self.actor.sample(seen, self.config.samples, generator)
        features = self.target.encoder(batch.later, self.normalizer, views)
        return there, density, td_target(batch.reward, batch.discount, self.target.heads(features, there))

    def _actor_loss(self, features: Tensor, action: Tensor, density: Tensor) -> Tensor:
        """`temperature log pi - min_e Q`, and the temperature's own loss towards an entropy of -D; Q learns nothing."""
        fixed = {name: p.detach() for name, p in self.online.heads.named_parameters()}
        q = functional_call(self.online.heads, fixed, (features.detach(), action)).amin(dim=0)
        temperature = self.log_temperature.exp()
        surplus = (-density.detach().mean()) - (-self.width)
        return (temperature.detach() * density - q).mean() + temperature * surplus
