"""Guidance by a critic: it is a cost of -Q, reads what it needs, and is refused where there are no gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.critic_cost import guide_by_critic
from sensorimotor.composition.fault import MemberError
from sensorimotor.composition.guided import guide
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.sampling import DDIM
from sensorimotor.rl.critic import Critic


class Quadratic(Critic):
    """Q = -(lambda / 2) |a - goal|^2 of the first action; the goal is observed under another key."""

    def __init__(self, weight: float = 2.0) -> None:
        spec = Spec(
            observation={"goal": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10, horizon=1
        )
        super().__init__(spec)
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def value(self, observation: Mapping[str, Any], actions: Tensor) -> Tensor:
        goal = observation["goal"][:, -1:]
        return -self.weight / 2 * (actions[:, :, 0] - goal).square().sum(dim=-1)


SEEN = {"state": torch.zeros(1, 1, 1), "goal": torch.full((1, 1, 1), 0.5)}
SAMPLER = DDIM(clip=None)


def test_values_pull_as_their_negative_costs(gaussian: Callable) -> None:
    def cost(chunks: Tensor, observation: Mapping[str, Any]) -> Tensor:
        return (chunks[:, :, 0, 0] - 0.5).square()

    policy = guide_by_critic(gaussian(-1.0, 0.25), Quadratic(), sampler=SAMPLER)
    assert set(policy.spec.observation) == {"state", "goal"}
    by_cost = guide(gaussian(-1.0, 0.25), cost, sampler=SAMPLER)
    for start, expected in ((0.0, -0.351503), (1.0, -0.351503 + 0.330160)):
        noise = torch.full((1, 1, 1, 1), start)
        drawn = policy.sample(SEEN, noise=noise)
        assert drawn.item() == pytest.approx(expected, abs=1e-4)
        assert torch.equal(drawn, by_cost.sample(SEEN, noise=noise))


def test_every_row_is_drawn_to_its_own_goal(gaussian: Callable) -> None:
    policy = guide_by_critic(gaussian(0.0, 1.0), Quadratic(), strength=2.0)
    goals = torch.tensor([-3.0, 3.0]).view(2, 1, 1)
    drawn = policy.sample({"state": torch.zeros(2, 1, 1), "goal": goals}, samples=50)
    low, high = drawn.mean(dim=(1, 2, 3)).tolist()
    assert low < -0.5 < 0.5 < high


def test_the_critic_moves_with_the_policy_and_is_named(gaussian: Callable) -> None:
    policy = guide_by_critic(gaussian(0.0, 1.0), Quadratic())
    assert "critic.weight" in dict(policy.named_parameters())
    assert "guided by Quadratic, strength 1" in str(policy)


def test_a_critic_that_raises_is_named(gaussian: Callable) -> None:
    critic = Quadratic()
    critic.value = lambda observation, actions: actions[0, 0, 0, 99]
    with pytest.raises(MemberError, match=r"'critic' \(Quadratic\) failed to value a chunk: index 99"):
        guide_by_critic(gaussian(0.0, 1.0), critic).sample(SEEN)


def test_a_gradient_that_is_not_finite_names_the_critic(gaussian: Callable) -> None:
    policy = guide_by_critic(gaussian(0.0, 1.0), Quadratic(float("nan")))
    with pytest.raises(MemberError, match=r"'cost' \(Quadratic\) failed to give a gradient: 1 of 1 numbers"):
        policy.sample(SEEN)
