"""Members that fail: named, or replaced by the others; counted; never half a chunk."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.fault import MemberError
from sensorimotor.composition.superposed import superpose
from sensorimotor.data.errors import ConfigError, RemoteError
from sensorimotor.policies.sampling import DDPM, FlowEuler


class Failing:
    """Makes a Gaussian member fail at its n-th answer, as a dying server or a broken network would."""

    def __init__(self, member: Any, at: int, how: str) -> None:
        self.member, self.at, self.how = member, at, how
        self.inner = member._clean_and_noise
        member._clean_and_noise = self

    def __call__(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        action, noise = self.inner(x, s)
        if self.member.asked <= self.at:
            return action, noise
        match self.how:
            case "nan":
                return action * float("nan"), noise * float("nan")
            case "infinite":
                return action, noise + float("inf")
            case _:
                raise RemoteError("ws://robot:1 did not answer within 0.5 s")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "nan",
            "member 'b' .Gaussian. failed to predict the noise: 1 of 1 numbers of its answer are not finite",
        ),
        ("infinite", "are not finite"),
        (
            "dead",
            "member 'b' .Gaussian. failed to predict the noise: ws://robot:1 did not answer within 0.5 s",
        ),
    ],
)
def test_a_member_that_fails_is_named(
    pair: list[Any], seen: dict[str, Tensor], how: str, message: str
) -> None:
    Failing(pair[1], 3, how)
    with pytest.raises(MemberError, match=message) as caught:
        compose({"a": pair[0], "b": pair[1]}, sampler=DDPM()).sample(seen)
    assert caught.value.member == "b"


@pytest.mark.parametrize("how", ["nan", "infinite", "dead"])
def test_the_others_draw_the_whole_chunk_as_if_it_had_not_been_there(
    pair: list[Any], seen: dict[str, Tensor], how: str
) -> None:
    expected = pair[0].sample(seen, samples=3, sampler=DDPM(), generator=torch.Generator().manual_seed(5))
    Failing(pair[1], 30, how)
    policy = compose({"a": pair[0], "b": pair[1]}, fallback="others")
    with pytest.warns(UserWarning, match="member 'b' failed and the others went on without it"):
        found = policy.sample(seen, samples=3, sampler=DDPM(), generator=torch.Generator().manual_seed(5))
    assert torch.equal(found, expected)
    assert policy.faults == {"b": 1}
    policy.sample(seen, sampler=DDPM())
    assert policy.faults == {"b": 2}


def test_a_member_that_cannot_even_look_is_left_out(pair: list[Any], seen: dict[str, Tensor]) -> None:
    def blind(observation: Any) -> Any:
        raise RemoteError("unreachable")

    pair[1].encode = blind
    with pytest.raises(
        MemberError, match=r"member .b. .Gaussian. failed to encode the observation: unreachable"
    ):
        compose({"a": pair[0], "b": pair[1]}).sample(seen)
    policy = compose({"a": pair[0], "b": pair[1]}, (0.3, 0.7), fallback="others")
    with pytest.warns(UserWarning, match="'b' failed"):
        assert torch.equal(policy.sample(seen), pair[0].sample(seen))


def test_when_all_fail_the_last_one_is_named(pair: list[Any], seen: dict[str, Tensor]) -> None:
    for member in pair:
        Failing(member, 2, "dead")
    with (
        pytest.warns(UserWarning, match="failed"),
        pytest.raises(MemberError, match="did not answer"),
    ):
        compose(pair, fallback="others").sample(seen)


def test_an_inner_composition_replaces_its_own_member(
    gaussian: Callable, pair: list[Any], seen: dict[str, Tensor]
) -> None:
    third = gaussian(0.5, 0.3)
    expected = compose([pair[0], third]).sample(seen, sampler=FlowEuler())
    Failing(pair[1], 4, "nan")
    inner = compose({"a": pair[0], "b": pair[1]}, fallback="others")
    outer = compose([inner, third])
    with pytest.warns(UserWarning, match="'b'"):
        assert torch.equal(outer.sample(seen, sampler=FlowEuler()), expected)
    assert (inner.faults, outer.faults) == ({"b": 1}, {})


def test_a_superposition_goes_on_too(pair: list[Any], seen: dict[str, Tensor]) -> None:
    expected = superpose([pair[0]], "or").sample(seen)
    Failing(pair[1], 50, "dead")
    with pytest.warns(UserWarning, match="failed"):
        found = superpose(pair, "or", fallback="others").sample(seen)
    torch.testing.assert_close(found, expected)


def test_a_negative_weight_cannot_take_over(pair: list[Any], seen: dict[str, Tensor]) -> None:
    Failing(pair[0], 3, "dead")
    policy = compose(pair, (1.3, -0.3), fallback="others")
    with (
        pytest.warns(UserWarning, match="failed"),
        pytest.raises(ConfigError, match=r"their weights sum to -0\.3"),
    ):
        policy.sample(seen)


def test_unknown_fallbacks_are_refused(pair: list[Any]) -> None:
    with pytest.raises(ConfigError, match="unknown fallback 'other'"):
        compose(pair, fallback="other")  # pyright: ignore[reportArgumentType]
