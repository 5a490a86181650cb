"""When can reranking help? What candidates and their values looked like."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.composition.candidates import candidate_spread
from sensorimotor.composition.spread import SpreadMeter
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.rl.critic import Critic

ACTION = Field(shape=(2,), names=("x", "y"))


def metered(among: float, between: float, worth: float, *, decisions: int = 400, k: int = 20) -> SpreadMeter:
    """Candidates that scatter by `among` about decisions that scatter by `between`, worth `worth` per x."""
    generator = torch.Generator().manual_seed(0)
    centre = between * torch.randn(decisions, 1, 1, 2, generator=generator)
    scored = centre + among * torch.randn(decisions, k, 1, 2, generator=generator)
    values = worth * (scored - centre)[:, :, 0, 0] + 3.0 * torch.randn(decisions, 1, generator=generator)
    meter = SpreadMeter()
    for part in range(4):  # in pieces, as calls come
        rows = slice(part * decisions // 4, (part + 1) * decisions // 4)
        meter.add(scored[rows], values[rows], values[rows].argmax(dim=1))
    return meter


def test_the_spread_of_known_candidates() -> None:
    found = metered(0.5, 2.0, 4.0).spread(ACTION)
    assert found.decisions == 400
    assert found.apart == pytest.approx((0.5, 0.5), rel=0.05)
    assert found.share == pytest.approx(0.5 / (0.5**2 + 2.0**2) ** 0.5, rel=0.06)
    assert found.value_apart == pytest.approx(2.0, rel=0.06)
    assert found.value_share == pytest.approx(2.0 / (2.0**2 + 3.0**2) ** 0.5, rel=0.06)
    assert found.gain == pytest.approx(1.867 * 2.0, rel=0.06)  # the largest of 20 normal numbers
    assert found.changed == pytest.approx(0.95, abs=0.03)
    assert found.verdict().startswith("candidates differ by 25 % of how actions vary")


def test_candidates_that_are_all_alike_are_said() -> None:
    assert "reranking cannot help: candidates differ by" in metered(0.01, 2.0, 100.0).spread(ACTION).verdict()


def test_values_that_are_all_alike_are_said() -> None:
    assert "tells states apart and not actions" in metered(0.5, 2.0, 0.001).spread(ACTION).verdict()


def test_nothing_noted_is_said() -> None:
    assert SpreadMeter().spread(ACTION).verdict() == "no decision has been made yet"


def test_candidates_without_a_value_do_not_count() -> None:
    meter = SpreadMeter()
    values = torch.tensor([[1.0, -torch.inf, 3.0], [-torch.inf] * 3])
    meter.add(torch.zeros(2, 3, 1, 2), values, torch.tensor([2, 0]))
    found = meter.spread(ACTION)
    assert found.value_apart == pytest.approx(0.5**0.5)  # sqrt 2 in one decision, nothing in the other
    assert found.gain == pytest.approx(0.5)
    assert found.changed == 0.5


def test_one_dimension_that_spreads_is_a_choice() -> None:
    generator = torch.Generator().manual_seed(0)
    scored = torch.randn(50, 1, 1, 2, generator=generator).repeat(1, 20, 1, 1)
    scored[..., 1] += torch.randn(50, 20, 1, generator=generator)
    meter = SpreadMeter()
    meter.add(scored, scored[:, :, 0, 1], scored[:, :, 0, 1].argmax(dim=1))
    found = meter.spread(ACTION)
    assert found.apart[0] == pytest.approx(0.0, abs=1e-6)
    assert found.share == pytest.approx(0.5**0.5, rel=0.1)
    assert "cannot help" not in found.verdict()


def test_small_differences_in_the_right_order_are_a_choice() -> None:
    found = metered(0.5, 2.0, 0.06).spread(ACTION)
    assert found.value_share == pytest.approx(0.01, rel=0.1)
    assert "cannot help" not in found.verdict()


def test_few_decisions_say_little() -> None:
    few, many = (metered(0.5, 2.0, 4.0, decisions=n).spread(ACTION).verdict() for n in (4, 40))
    assert few.endswith("of 4 decisions, which are few to judge by; 10 or more are better")
    assert many.endswith("of 40 decisions")


class Farthest(Critic):
    """Values the distance of the first action from the origin, in the dimension x."""

    def value(self, observation: Any, actions: Tensor) -> Tensor:
        return actions[:, :, 0, 0].abs()


def recorded(steps: int = 300) -> Episodes:
    state = np.random.default_rng(0).normal(size=(steps, 1)).astype(np.float32)
    spec = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10)
    return Episodes(
        spec=spec,
        observation={"state": state},
        action=np.zeros((steps, 1), np.float32),
        ends=np.array([steps]),
    )


def test_candidates_are_looked_at_on_demonstrations(gaussian: Callable) -> None:
    policy, episodes = gaussian(0.0, 0.25), recorded()
    policy.sampler = FlowEuler(steps=60)
    critic = Farthest(policy.spec)
    found = candidate_spread(policy, critic, episodes, samples=10, count=400)
    assert found.decisions == 400
    assert found.apart == pytest.approx((0.5,), rel=0.05)
    assert found.changed == pytest.approx(0.9, abs=0.06)
    again = candidate_spread(policy, critic, episodes, samples=10, count=400)
    assert found == again
    with pytest.raises(ConfigError, match="got samples 1, count 256"):
        candidate_spread(policy, critic, episodes, samples=1)


def test_a_policy_that_repeats_itself_leaves_no_choice_on_demonstrations(gaussian: Callable) -> None:
    policy = gaussian(1.0, 0.0)
    verdict = candidate_spread(policy, Farthest(policy.spec), recorded(), count=64).verdict()
    assert verdict.startswith("reranking cannot help: candidates differ by 0.0 %")
