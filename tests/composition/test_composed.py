"""Mixing at every noise level: hand-computed numbers, degenerate weights, and members that differ."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose, compose_conditional
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.weights import Observed, PerDimension, Schedule
from sensorimotor.data.errors import ConfigError, NormalizerError, SpecError
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.path import levels, to_path
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, Trace

DDIM_10 = DDIM(steps=10, clip=None)
STARTS = torch.tensor([0.0, 1.0, -2.0]).view(1, 3, 1, 1)


def drawn(policy: Any, seen: dict[str, Tensor], sampler: Any = None, noise: Tensor = STARTS) -> list[float]:
    return policy.sample(seen, samples=noise.shape[1], noise=noise, sampler=sampler).flatten().tolist()


@pytest.mark.parametrize(
    ("weight", "gain", "shift"),
    [
        (1.0, 0.435487, -0.939118),
        (0.5, 0.629844, 0.127290),
        (0.3, 0.726438, 0.699001),
        (0.0, 0.895387, 1.749648),
    ],
)
def test_ddim_of_the_pair_is_the_known_line(
    pair: list[Any], seen: dict[str, Tensor], weight: float, gain: float, shift: float
) -> None:
    found = drawn(compose(pair, (weight, 1 - weight)), seen, DDIM_10)
    assert found == pytest.approx([shift, gain + shift, shift - 2 * gain], abs=2e-6)


def test_weight_one_is_the_member_bit_for_bit_and_nobody_else_is_asked(
    pair: list[Any], seen: dict[str, Tensor]
) -> None:
    first, second = pair
    for sampler in (DDPM(), DDIM_10, FlowEuler()):
        alone = first.sample(seen, samples=5, generator=torch.Generator().manual_seed(3), sampler=sampler)
        before = second.asked, second.encoded
        policy = compose(pair, (1.0, 0.0))
        together = policy.sample(seen, samples=5, generator=torch.Generator().manual_seed(3), sampler=sampler)
        assert torch.equal(together, alone)
        assert (second.asked, second.encoded) == before


def test_the_unused_member_decides_nothing(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    other = gaussian(0.0, 1.0, horizon=7, width=2, offset=3.0, key="elsewhere", control_hz=50)
    policy = compose([gaussian(-1.0, 0.25), other], (1, 0))
    assert policy.spec == gaussian(-1.0, 0.25).spec
    assert drawn(policy, seen, DDIM_10)[0] == pytest.approx(-0.939118, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.7])
def test_a_member_composed_with_itself_is_itself(
    gaussian: Callable, seen: dict[str, Tensor], weight: float
) -> None:
    member = gaussian(-1.0, 0.25)
    policy = compose([member, member], (weight, 1 - weight))
    assert drawn(policy, seen, DDIM_10) == pytest.approx(drawn(member, seen, DDIM_10), abs=2e-6)


def test_the_order_of_members_changes_nothing(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    members, weights = [gaussian(-1.0, 0.25), gaussian(2.0, 1.0), gaussian(0.3, 0.5)], (0.2, 0.5, 0.3)
    one = compose(members, weights)
    other = compose(members[::-1], weights[::-1])
    assert drawn(one, seen, DDIM_10) == pytest.approx(drawn(other, seen, DDIM_10), abs=1e-6)


def test_members_are_asked_once_per_step_and_encoded_once(pair: list[Any], seen: dict[str, Tensor]) -> None:
    policy, trace = compose(pair, (0.4, 0.6)), Trace()
    policy.sample(seen, samples=50, sampler=DDIM_10, trace=trace)
    assert [member.asked for member in pair] == [10, 10]
    assert [member.encoded for member in pair] == [1, 1]
    assert [policy.ledger.calls(name) for name in policy.names] == [10, 10]
    assert trace.evaluations is not None
    assert (trace.evaluations == 20).all()


def test_a_shorter_chunk_takes_part_as_far_as_it_reaches(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    policy = compose([gaussian(-1.0, 0.25, horizon=4), gaussian(2.0, 1.0, horizon=2)])
    found = drawn(policy, seen, DDIM_10, torch.ones(1, 1, 4, 1))
    assert found == pytest.approx([0.757134, 0.757134, -0.503631, -0.503631], abs=2e-6)
    swapped = compose([gaussian(2.0, 1.0, horizon=2), gaussian(-1.0, 0.25, horizon=4)])
    assert drawn(swapped, seen, DDIM_10, torch.ones(1, 1, 4, 1)) == pytest.approx(found, abs=2e-6)


def test_chunks_that_begin_at_different_times_meet_in_time(gaussian: Callable) -> None:
    early = gaussian(-1.0, 0.25, horizon=3, observation_steps=2, start=-1)
    policy = compose([early, gaussian(2.0, 1.0, horizon=3)])
    assert (policy.spec.start, policy.spec.horizon, policy.spec.observation_steps) == (-1, 4, 2)
    found = drawn(policy, {"state": torch.zeros(1, 2, 1)}, DDIM_10, torch.ones(1, 1, 4, 1))
    assert found == pytest.approx([-0.503631, 0.757134, 0.757134, 2.645035], abs=2e-6)


@pytest.mark.parametrize(("offset", "scale"), [(0.5, 1.0), (0.5, 2.0), (-3.0, 0.1)])
def test_another_isotropic_normaliser_changes_nothing(
    gaussian: Callable, seen: dict[str, Tensor], offset: float, scale: float
) -> None:
    policy = compose([gaussian(-1.0, 0.25), gaussian(2.0, 1.0, offset=offset, scale=scale)])
    for sampler, gain, shift in ((DDIM_10, 0.629844, 0.127290), (FlowEuler(), 0.621126, 0.179277)):
        expected = [shift, gain + shift, shift - 2 * gain]
        assert drawn(policy, seen, sampler) == pytest.approx(expected, abs=1e-5)


def test_the_noise_of_a_member_with_another_normaliser_by_hand(
    gaussian: Callable, seen: dict[str, Tensor]
) -> None:
    # k = 50, d = 2, b = 0.5, N(1, 0.64) in the common space, noised u = 0.9.
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    x, s = to_path(torch.full((1, 1, 1), 0.9, dtype=torch.float64), alpha, sigma)
    policy = compose([gaussian(0.0, 1.0), gaussian(1.0, 0.64, offset=0.5, scale=2.0)])
    assert policy.ask(1, "noise", x, s, policy.encode(seen)).item() == pytest.approx(0.181867, abs=1e-6)


def test_scales_that_differ_by_more_than_one_number_are_refused(gaussian: Callable) -> None:
    one, other = gaussian(0.0, 1.0, width=2), gaussian(0.0, 1.0, width=2)
    other.normalizer = type(other.normalizer)({"action": (torch.zeros(2), torch.tensor([1.0, 3.0]))})
    with pytest.raises(
        NormalizerError, match=r"'gaussian' and 'b' scale .* factor of 1 for number 0 .* of 3 for number 1"
    ):
        compose([one, Part(other, "b")])


def test_an_action_may_be_commanded_in_part(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    policy = compose([gaussian(-1.0, 0.25, width=3), Part(gaussian(2.0, 1.0), columns=(1,))])
    found = drawn(policy, seen, DDIM_10, torch.ones(1, 1, 1, 3))
    assert found == pytest.approx([-0.503631, 0.757134, -0.503631], abs=2e-6)
    with pytest.raises(SpecError, match=r"have 3 numbers, those of narrow 1; say which"):
        compose({"wide": gaussian(0.0, 1.0, width=3), "narrow": gaussian(0.0, 1.0)})
    with pytest.raises(
        SpecError, match=r"columns are \(3,\); allowed is one different number in 0\.\.2 each"
    ):
        compose([gaussian(0.0, 1.0, width=3), Part(gaussian(0.0, 1.0), columns=(3,))])


def test_each_member_reads_its_own_observations(gaussian: Callable) -> None:
    policy = compose([gaussian(-1.0, 0.25, key="near"), gaussian(2.0, 1.0, key="far", observation_steps=3)])
    assert (set(policy.spec.observation), policy.spec.observation_steps) == ({"near", "far"}, 3)
    observation = {"near": torch.zeros(1, 3, 1), "far": torch.zeros(1, 3, 1)}
    assert drawn(policy, observation, DDIM_10)[0] == pytest.approx(0.127290, abs=1e-6)


def test_a_composition_is_a_member_again(
    gaussian: Callable, pair: list[Any], seen: dict[str, Tensor]
) -> None:
    third = gaussian(0.5, 0.3)
    nested = compose([compose(pair, (0.25, 0.75)), third], (0.4, 0.6))
    flat = compose([*pair, third], (0.1, 0.3, 0.6))
    assert drawn(nested, seen, DDIM_10) == pytest.approx(drawn(flat, seen, DDIM_10), abs=2e-6)
    trace = Trace()
    nested.sample(seen, sampler=DDIM_10, trace=trace)
    assert trace.evaluations is not None
    assert trace.evaluations.item() == 30


def test_constant_weights_may_be_written_in_every_form(pair: list[Any], seen: dict[str, Tensor]) -> None:
    expected = drawn(compose(pair, (0.3, 0.7)), seen, DDIM_10)
    for weights in (
        Schedule((0.0, 1.0), ((0.3, 0.7), (0.3, 0.7))),
        PerDimension(((0.3,), (0.7,))),
        Observed(lambda observation: torch.tensor([[0.3, 0.7]]), 2),
    ):
        assert drawn(compose(pair, weights), seen, DDIM_10) == pytest.approx(expected, abs=1e-6)


def test_a_schedule_asks_nobody_whose_turn_it_is_not(pair: list[Any], seen: dict[str, Tensor]) -> None:
    # The first member shapes the noisy half, the second the rest: 5 of 10 steps each.
    policy = compose(pair, Schedule((0.5, 0.500001), ((0.0, 1.0), (1.0, 0.0))))
    policy.sample(seen, sampler=FlowEuler(steps=10))
    assert [member.asked for member in pair] == [5, 5]


def test_dimensions_may_belong_to_different_members(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    members = [gaussian(-1.0, 0.25, width=2), gaussian(2.0, 1.0, width=2)]
    found = drawn(compose(members, PerDimension(((1, 0), (0, 1)))), seen, DDIM_10, torch.zeros(1, 1, 1, 2))
    assert found == pytest.approx([-0.939118, 1.749648], abs=2e-6)
    with pytest.raises(ConfigError, match="3 weights per member for actions of 2 numbers"):
        compose(members, PerDimension(((1, 0, 1), (0, 1, 0))))


def test_weights_may_follow_what_is_seen(pair: list[Any]) -> None:
    def trust(observation: Any) -> Tensor:
        sharp = observation["state"][:, -1, 0] > 0
        return torch.stack([sharp.float(), 1 - sharp.float()], dim=1)

    policy = compose(pair, Observed(trust, 2))
    observation = {"state": torch.tensor([1.0, -1.0]).view(2, 1, 1)}
    found = policy.sample(observation, samples=2, noise=torch.zeros(2, 2, 1, 1), sampler=DDIM_10)
    torch.testing.assert_close(
        found.flatten(), torch.tensor([-0.939118, -0.939118, 1.749648, 1.749648]), atol=2e-6, rtol=0
    )
    with pytest.raises(ConfigError, match=r"observation 1 are \[0\.5, 0\.6"):
        compose(pair, Observed(lambda o: torch.tensor([[0.5, 0.5], [0.5, 0.6]]), 2)).sample(observation)


def test_the_conditional_form_with_weights_of_sum_one_is_convex(
    gaussian: Callable, pair: list[Any], seen: dict[str, Tensor]
) -> None:
    policy = compose_conditional(gaussian(9.0, 4.0), pair, (0.3, 0.7))
    assert drawn(policy, seen, DDIM_10) == pytest.approx(
        drawn(compose(pair, (0.3, 0.7)), seen, DDIM_10), abs=1e-6
    )


def test_the_conditional_form_is_sharper_than_bayes_rule(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    # Prior N(0, 1), N(.8, .2), N(.4, .2). Bayes: precision 9, mean 2/3.
    policy = compose_conditional(gaussian(0.0, 1.0), [gaussian(0.8, 0.2), gaussian(0.4, 0.2)], (1.0, 1.0))
    at_0, at_1 = drawn(policy, seen, DDIM(steps=100, clip=None), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
    assert 0 < at_1 - at_0 < (1 / 9) ** 0.5
    assert 0.4 < at_0 < 0.8


def test_sharper_products_need_a_sampler_that_steps_with_noise(
    pair: list[Any], seen: dict[str, Tensor]
) -> None:
    with pytest.raises(ConfigError, match=r"must sum to 1, got 2 from \(1\.0, 1\.0\); divide them"):
        compose(pair, (1, 1))
    policy = compose(pair, (1, 1), total="any")
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    x, s = to_path(torch.full((1, 1, 1), 0.4, dtype=torch.float64), alpha, sigma)
    assert policy.predict_noise(x, s, policy.encode(seen)).item() == pytest.approx(0.519327, abs=1e-6)
    with pytest.raises(ConfigError, match=r"no velocity at s = 1, where FlowEuler begins; use DDIM"):
        policy.sample(seen, sampler=FlowEuler())


def test_samplers_of_one_family_are_refused_for_several_members(
    pair: list[Any], seen: dict[str, Tensor]
) -> None:
    with pytest.raises(ConfigError, match="cannot be sampled by Descent"):
        compose(pair).sample(seen, sampler=Descent())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5,), "1 weights for 2 members"),
        ((0.5, float("nan")), "weights must be finite"),
        ((0.0, 0.0), "must sum to 1, got 0"),
        (Schedule((0.2, 0.8), ((0.5, 0.5), (0.5, 0.6))), "must sum to 1, got 1.1"),
    ],
)
def test_impossible_weights_are_refused(pair: list[Any], weights: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(pair, weights)


def test_members_that_cannot_meet_are_named(gaussian: Callable) -> None:
    with pytest.raises(SpecError, match="control_hz differs: slow 10, fast 20"):
        compose({"slow": gaussian(0.0, 1.0), "fast": gaussian(0.0, 1.0, control_hz=20)})
    with pytest.raises(ConfigError, match="a composition needs members"):
        compose([])
    with pytest.raises(ConfigError, match="two members are called 'a'"):
        compose([Part(gaussian(0.0, 1.0), "a"), Part(gaussian(0.0, 1.0), "a")])


def test_unknown_totals_are_refused(pair: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"unknown total 'all'; .*any, one"):
        compose(pair, total="all")  # pyright: ignore[reportArgumentType]
