"""A critic as a cost: `guide` then draws chunks towards what it values, the continuous relative of reranking."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..policies.policy import Policy
from ..policies.sampling import OwnSampler, SamplerConfig
from ..rl.critic import Critic
from .fault import member_fault
from .guided import GuidedPolicy
from .meeting import Part, as_parts, reading_more, seen_by
from .reranked import scored_rows


class CriticCost:
    """`-Q` of chunks, for `guide`.

    Attributes:
        critic: values actions, in physical units.
        rows: of a chunk, those that it scores.
    """

    def __init__(self, critic: Critic, rows: slice) -> None:
        """Score these rows."""
        self.critic, self.rows = critic, rows
        self.__name__ = type(critic).__name__

    def __call__(self, chunks: Tensor, observation: Mapping[str, Any]) -> Tensor:
        """Costs (B, K) of chunks (B, K, H, A)."""
        with member_fault("critic", self.__name__, "value a chunk"):
            return -self.critic.value(seen_by(self.critic.spec, observation), chunks[:, :, self.rows])


def guide_by_critic(
    policy: Policy | Part,
    critic: Critic,
    *,
    strength: float = 1.0,
    sampler: SamplerConfig | OwnSampler | None = None,
) -> GuidedPolicy:
    """A policy whose chunks are drawn to what a critic values: `eps <- eps - gamma sigma grad_x Q(a_hat(x))`.

    Where candidates are too alike for reranking, this moves them; it also trusts the critic about actions that no
    demonstration and no candidate ever was.

    Args:
        policy: any that answers at any noise level and can be differentiated; a remote one cannot.
        critic: values its next actions.
        strength: gamma, in units of noise per unit of value.
        sampler: how chunks are drawn; the policy's own if not given.

    Raises:
        ConfigError: for a policy of another process, which gives no gradients.
        SpecError: if the two read or command different things.
    """
    (part,) = as_parts([policy])
    rows = scored_rows(part.policy, critic)
    guided = GuidedPolicy(part, CriticCost(critic, rows), strength=strength, sampler=sampler)
    guided.spec = reading_more(guided.spec, critic.spec, "policy", "critic")
    return guided
