"""Costs that steer: `eps <- eps + gamma sigma grad_x C(a_hat(x))`, as PoCo's behaviours (arXiv 2402.02511).

The gradient is taken with respect to the noised chunk, through the action estimated there. One with respect to that
estimate alone is another, larger number, and runs off near the noise. On the path sigma is s, and the same step
changes the velocity by `gamma s / (1 - s) grad`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from ..policies.path import action_from_noise, action_from_velocity, spread
from ..policies.policy import Policy
from ..policies.remote.remote import RemotePolicy
from ..policies.sampling import DrawOptions, OwnSampler, SamplerConfig
from .ensemble import Ensemble
from .fault import check_finite, member_fault
from .meeting import Part, as_parts
from .member import Question
from .together import Together

Cost = Callable[[Tensor, Mapping[str, Any]], Tensor]
"""Chunks (B, K, H, A) in physical units and observations of B rows to costs (B, K), differentiable in the chunks."""

_LARGEST_S = 0.9999  # beyond, a noise says nothing about the action it hides
_STEEPEST = 10.0  # bound on s / (1 - s), where a velocity is asked for at the noise itself


@dataclass
class Watched(Together):
    """What the member knows of B' rows, and the observations that the cost looks at.

    Attributes:
        observation: of B rows, B' = B * K.
        batch: B.
    """

    observation: Mapping[str, Any] | None = None
    batch: int = 0


class GuidedPolicy(Ensemble):
    """A policy whose chunks are drawn to a low cost.

    Attributes:
        cost: what is to be low.
        strength: gamma; 0 changes nothing.
        critic: whose values the cost is made of, if it is; it moves with the policy.
    """

    def __init__(
        self, part: Part, cost: Cost, *, strength: float, sampler: SamplerConfig | OwnSampler | None
    ) -> None:
        """Made by `guide`."""
        super().__init__([part], sampler=sampler, fallback="none", execute=None)
        if not math.isfinite(strength):
            raise ConfigError(f"strength must be finite, got {strength}")
        if any(isinstance(module, RemotePolicy) for module in part.policy.modules()):
            raise ConfigError(
                f"{part.name!r} answers from another process, which gives no gradients to steer by; rerank its candidates"
            )
        self.cost, self.strength = cost, strength
        critic = getattr(cost, "critic", None)
        self.critic = critic if isinstance(critic, nn.Module) else None

    def encode(self, observation: Mapping[str, Any]) -> Watched:
        """What the policy and the cost know of B observations."""
        known = super().encode(observation)
        return Watched(known.parts, known.rows, known.origin, observation=observation, batch=known.rows)

    def predict_noise(self, x: Tensor, s: Tensor, condition: Watched) -> Tensor:
        """eps_hat at x_s, with the cost."""
        if self.strength == 0:
            return self.ask(0, "noise", x, s, condition)
        noise, slope = self._slope("noise", x, s, condition)
        return noise + self.strength * spread(s, x) * slope

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Watched) -> Tensor:
        """eps_hat - a_hat at x_s, with the cost."""
        if self.strength == 0:
            return self.ask(0, "velocity", x, s, condition)
        velocity, slope = self._slope("velocity", x, s, condition)
        at = spread(s, x)
        return velocity + self.strength * (at / (1 - at)).clamp_max(_STEEPEST) * slope

    def _slope(self, question: Question, x: Tensor, s: Tensor, condition: Watched) -> tuple[Tensor, Tensor]:
        """The policy's answer, and the gradient of the cost at x_s."""

        def price(point: Tensor) -> tuple[Tensor, Tensor]:
            answer = self.ask(0, question, point, s, condition)
            if question == "noise":
                action = action_from_noise(point, s.clamp_max(_LARGEST_S), answer)
            else:
                action = action_from_velocity(point, s, answer)
            action = action[..., : self.spec.action_dim]
            chunks = self.unnormalize_action(action, condition).unflatten(0, (condition.batch, -1))
            assert condition.observation is not None
            costs = self.cost(chunks, condition.observation)
            if costs.shape != chunks.shape[:2]:
                raise ConfigError(
                    f"a cost has shape {tuple(costs.shape)}; needed is {tuple(chunks.shape[:2])}: batch, samples"
                )
            return costs.sum(), answer

        # Not autograd.grad, which fails under inference_mode.
        found: Any = torch.func.vjp(price, x, has_aux=True)
        total, back, answer = found
        with member_fault("cost", self.cost_name, "give a gradient"):
            return answer, check_finite(back(torch.ones_like(total))[0])

    @property
    def cost_name(self) -> str:
        """What the cost is called."""
        return getattr(self.cost, "__name__", type(self.cost).__name__)

    def _draw(
        self,
        condition: Together,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        options: DrawOptions,
    ) -> Tensor:
        if self.strength == 0 and isinstance(sampler, OwnSampler):
            return self.draw_alone(condition, shape, sampler, options)
        return super()._draw(condition, shape, sampler, options)

    def heading(self) -> str:
        """What it is, for people."""
        return f"guided by {self.cost_name}, strength {self.strength:.3g}"

    def share(self, number: int) -> str:
        """Empty: there is one member."""
        return ""


def guide(
    policy: Policy | Part,
    cost: Cost,
    *,
    strength: float = 1.0,
    sampler: SamplerConfig | OwnSampler | None = None,
) -> GuidedPolicy:
    """A policy whose chunks are drawn to a low cost: smoothness, a place to keep away from, a critic's -Q.

    What is drawn only approximates the policy's density times exp(-cost).

    Args:
        policy: any that answers at any noise level, and can be differentiated; a remote one cannot.
        cost: chunks (B, K, H, A) in physical units and observations to costs (B, K).
        strength: gamma.
        sampler: how chunks are drawn; the policy's own if not given.
    """
    (part,) = as_parts([policy])
    return GuidedPolicy(part, cost, strength=strength, sampler=sampler)
