"""Costs: hand-computed numbers, units, and that nothing changes at strength 0."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.guided import guide
from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.path import levels, to_path
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler

NOISE = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)


def to_half(chunks: Tensor, observation: Mapping[str, Any]) -> Tensor:
    """(lambda / 2) |a - g|^2 with lambda 2 and g 0.5."""
    return (chunks - 0.5).square().sum(dim=(2, 3))


def test_the_guided_noise_by_hand(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    x, s = to_path(torch.full((1, 1, 1), 0.4, dtype=torch.float64), alpha, sigma)
    policy = guide(gaussian(-1.0, 0.25), to_half)
    condition = policy.encode(seen)
    assert policy.ask(0, "noise", x, s, condition).item() == pytest.approx(1.229457, abs=1e-6)
    assert policy.predict_noise(x, s, condition).item() == pytest.approx(0.759873, abs=1e-6)
    implied = x + (1 - s) * policy.predict_velocity(x, s, condition)
    assert implied.item() == pytest.approx(0.759873, abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "gain", "shift", "tolerance"),
    [(10, 0.330160, -0.351503, 2e-6), (100, 0.382099, -0.363597, 2e-3)],
)
def test_guided_ddim_is_the_known_line(
    gaussian: Callable, seen: dict[str, Tensor], steps: int, gain: float, shift: float, tolerance: float
) -> None:
    policy = guide(gaussian(-1.0, 0.25), to_half, sampler=DDIM(steps=steps, clip=None))
    at_0, at_1 = policy.sample(seen, samples=2, noise=NOISE).flatten().tolist()
    assert at_0 == pytest.approx(shift, abs=tolerance)
    assert at_1 - at_0 == pytest.approx(gain, abs=tolerance)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(), FlowEuler()])
def test_strength_0_changes_no_bit(gaussian: Callable, seen: dict[str, Tensor], sampler: Any) -> None:
    member = gaussian(-1.0, 0.25)
    expected = member.sample(seen, samples=4, sampler=sampler)
    assert torch.equal(
        guide(member, to_half, strength=0.0).sample(seen, samples=4, sampler=sampler), expected
    )


def test_a_cost_sees_physical_units_of_all_samples(gaussian: Callable) -> None:
    shapes = []

    def cost(chunks: Tensor, observation: Mapping[str, Tensor]) -> Tensor:
        shapes.append((tuple(chunks.shape), tuple(observation["state"].shape)))
        return to_half(chunks, observation)

    observation = {"state": torch.zeros(2, 1, 1)}
    moved = guide(gaussian(-1.0, 0.25, offset=3.0, scale=2.0), cost).sample(
        observation, samples=3, noise=torch.zeros(2, 3, 1, 1)
    )
    assert set(shapes) == {((2, 3, 1, 1), (2, 1, 1))}
    plain = gaussian(-1.0, 0.25).sample(observation, noise=torch.zeros(2, 1, 1, 1))
    assert (moved > plain.mean()).all()  # towards 0.5


def test_a_guided_policy_is_a_member(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    free, drawn_in = gaussian(-1.0, 0.25), guide(gaussian(-1.0, 0.25), to_half)
    both = compose([free, drawn_in])
    low, middle, high = (p.sample(seen, noise=torch.zeros(1, 1, 1, 1)).item() for p in (free, both, drawn_in))
    assert low < middle < high


def test_impossible_costs_are_refused(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="strength must be finite"):
        guide(gaussian(0.0, 1.0), to_half, strength=float("inf"))
    with pytest.raises(ConfigError, match=r"a cost has shape \(\); needed is \(1, 1\): batch, samples"):
        guide(gaussian(0.0, 1.0), lambda chunks, observation: chunks.sum()).sample(seen)
