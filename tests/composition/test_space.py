"""Passages between action spaces: the same action, the same noise, another place on the path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.space import (
    ActionSpace,
    Passage,
    Window,
    carry,
    carry_velocity_back,
    check_columns,
    common_space,
)
from sensorimotor.data.errors import NormalizerError, SpecError
from sensorimotor.policies.path import mix, spread

SEEDS = range(8)


def case(seed: int) -> tuple[Tensor, Tensor, Tensor, float, Tensor]:
    """Actions, noise and positions of 5 rows, and a random passage; scales reach over four orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    action, noise = (3 * torch.randn(5, 4, 2, generator=generator).double() for _ in range(2))
    s = torch.rand(5, generator=generator).double()
    d = float(10 ** (4 * torch.rand((), generator=generator) - 2))
    return action, noise, s, d, 5 * torch.randn(4, 2, generator=generator).double()


def space(offset: float | Tensor, scale: float | Tensor, shape: Any = (4, 2), relative: Any = None) -> Any:
    return ActionSpace(torch.zeros(shape) + offset, torch.zeros(shape) + scale, relative)


def whole(shape: tuple[int, int] = (4, 2)) -> Window:
    return Window(0, shape[0], tuple(range(shape[1])))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_point_is_carried_with_its_action_and_its_noise(seed: int) -> None:
    action, noise, s, d, b = case(seed)
    x, at = carry(mix(action, noise, s), s, d, b)
    torch.testing.assert_close(x, mix((action - b) / d, noise, at))
    for row in range(5):  # one position for all rows is the same
        alone, where = carry(mix(action, noise, s[row]), s[row], d, b)
        torch.testing.assert_close((alone[row], where), (x[row], at[row]))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_way_back_is_the_inverse_passage(seed: int) -> None:
    action, noise, s, d, b = case(seed)
    x = mix(action, noise, s)
    back, at = carry(*carry(x, s, d, b), 1 / d, -b / d)
    torch.testing.assert_close((back, at), (x, s))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_velocity_comes_back_as_the_velocity(seed: int) -> None:
    action, noise, s, d, b = case(seed)
    x, at = carry(mix(action, noise, s), s, d, b)
    found = carry_velocity_back(x, at, noise - (action - b) / d, d, b)
    torch.testing.assert_close(found, noise - action)


def test_a_passage_by_hand() -> None:
    s, x = torch.tensor(0.510873), torch.full((1, 1, 1), 0.636547)
    point, at = carry(x, s, 2.0, torch.full((1, 1), 0.5))
    assert (point.item(), at.item()) == pytest.approx((0.263230, 0.343069), abs=1e-6)


def test_both_ends_of_the_path_are_ends_everywhere() -> None:
    action, noise, _, d, b = case(0)
    for s, end in ((torch.tensor(0.0), (action - b) / d), (torch.tensor(1.0), noise)):
        x, at = carry(mix(action, noise, s), s, d, b)
        assert at == s
        torch.testing.assert_close(x, end)


def test_nothing_changes_in_the_same_space() -> None:
    x, s = torch.randn(2, 4, 2), torch.rand(2)
    assert carry(x, s, 1.0, None) == (x, s)
    assert carry_velocity_back(x, s, x, 1.0, None) is x


def test_the_shift_may_differ_from_row_to_row() -> None:
    action, noise, s, d, _ = case(1)
    b = torch.randn(5, 4, 2).double()
    x, at = carry(mix(action, noise, s), s, d, b)
    torch.testing.assert_close(x, mix((action - b) / d, noise, at))
    velocity = carry_velocity_back(x, at, noise - (action - b) / d, d, b)
    torch.testing.assert_close(velocity, noise - action)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_passage_maps_scaled_actions_of_one_space_to_those_of_the_other(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = 0.1 + torch.rand(6, 3, generator=generator)
    common = ActionSpace(torch.randn(6, 3, generator=generator), scale, "state")
    window = Window(1, 4, (2, 0))
    part = (window.rows, list(window.columns))
    own = ActionSpace(torch.randn(4, 2, generator=generator), 2.5 * scale[part], "hand")
    passage = Passage.between(common, own, window, name="b", reference="a")
    assert passage.d == pytest.approx(2.5)
    physical = torch.randn(7, 6, 3, generator=generator)
    origin, own_origin = torch.randn(7, 3, generator=generator), torch.randn(7, 2, generator=generator)
    for mine, ours in ((None, None), (own_origin, None), (None, origin), (own_origin, origin)):
        here = physical if ours is None else physical - ours[:, None]
        there = physical[:, part[0]][..., part[1]]
        there = there if mine is None else there - mine[:, None]
        z = ((here - common.offset) / common.scale)[:, part[0]][..., part[1]]
        b = passage.shift(mine, ours)
        assert b is not None
        torch.testing.assert_close((z - b) / passage.d, (there - own.offset) / own.scale)


def test_rounding_of_statistics_is_no_difference() -> None:
    passage = Passage.between(
        space(0.3, 2.0), space(0.3 + 1e-7, 2.0 * (1 + 3e-6)), whole(), name="b", reference="a"
    )
    assert (passage.d, passage.b) == (1.0, None)
    assert passage.shift(None, None) is None


@pytest.mark.parametrize(
    ("relative", "reason"),
    [
        (None, "they were trained on other data"),
        ("state", "one of them predicts offsets from an observation and the other does not"),
    ],
)
def test_a_refusal_names_members_elements_factors_and_what_to_do(relative: Any, reason: str) -> None:
    scale = torch.ones(4, 2)
    scale[1, 0], scale[3, 1] = 0.5, 4.0
    with pytest.raises(NormalizerError, match="scale actions differently") as caught:
        Passage.between(
            space(0.0, 1.0), space(0.0, scale, relative=relative), whole(), name="cam", reference="arm"
        )
    message = str(caught.value)
    for words in (
        "members 'arm' and 'cam'",
        "a factor of 0.5 for number 0 of action 1 and of 4 for number 1 of action 3",
        reason,
        "policy.normalizer.like=<run of arm>",
        "or rerank instead of composing",
    ):
        assert words in message


def test_a_refusal_counts_as_the_composition_does() -> None:
    scale = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    common = space(0.0, 1.0, (4, 3))
    with pytest.raises(NormalizerError, match="for number 0 of action 3"):
        Passage.between(common, space(0.0, scale, (2, 2)), Window(2, 2, (2, 0)), name="b", reference="a")


def test_the_first_member_decides_and_later_ones_fill_up() -> None:
    first, second = space(1.0, 2.0, (2, 2)), space(torch.arange(4.0)[:, None], 6.0)
    found = common_space([first, second], [Window(0, 2, (0, 1)), whole()], (4, 2))
    assert found.offset[:, 0].tolist() == [1.0, 1.0, 2.0, 3.0]
    assert found.scale.unique().tolist() == [2.0]  # as large as the first one's, by which the second differs
    for own, window in ((first, Window(0, 2, (0, 1))), (second, whole())):
        Passage.between(found, own, window, name="b", reference="a")


def test_a_policy_with_a_scale_of_its_own_has_no_place(gaussian: Callable) -> None:
    kind: Any = gaussian

    class Squashed(kind):
        def unnormalize_action(self, x: Tensor, condition: Any) -> Tensor:
            return x.tanh()

    with pytest.raises(NormalizerError, match="Squashed scales actions in a way of its own"):
        compose([gaussian(0.0, 1.0), Squashed(0.0, 1.0)])


@pytest.mark.parametrize("columns", [(0,), (0, 0), (0, 3), (-1, 0)])
def test_columns_name_one_number_each(columns: tuple[int, ...]) -> None:
    with pytest.raises(
        SpecError, match=r"member 'a' has actions of 2 numbers.* one different number in 0\.\.2"
    ):
        check_columns(columns, 2, 3, "a")


def test_windows_know_whether_they_are_all() -> None:
    assert whole().whole(4, 2)
    for window in (Window(1, 3, (0, 1)), Window(0, 3, (0, 1)), Window(0, 4, (1, 0)), Window(0, 4, (0,))):
        assert not window.whole(4, 2)


def test_positions_spread_over_chunks() -> None:
    assert spread(torch.tensor(0.3), torch.zeros(2, 4, 2)).ndim == 0
    assert spread(torch.rand(2), torch.zeros(2, 4, 2)).shape == (2, 1, 1)
