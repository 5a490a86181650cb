"""Weights in every form: what they are at a level, who never counts, what is refused."""

from typing import Any

import pytest
import torch

from sensorimotor.composition.weights import (
    Constant,
    Observed,
    PerDimension,
    Schedule,
    as_weights,
    at_level,
    check_sum,
    described,
    members_of,
    never_used,
    observed,
    select,
    sums,
)
from sensorimotor.data.errors import ConfigError

SCHEDULE = Schedule((0.2, 0.4, 0.8), ((0.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.9, 0.1, 0.0)))
GRID = PerDimension(((1.0, 0.5), (0.0, 0.5), (0.0, 0.0)))
EVENLY = Observed(lambda seen: torch.full((2, 2), 0.5), 2)


def answering(values: Any, count: int = 2) -> Observed:
    return Observed(lambda seen: torch.tensor(values), count)


def test_weights_not_given_are_even() -> None:
    weights = as_weights(None, 4)
    assert isinstance(weights, Constant)
    assert weights.values == (0.25,) * 4
    assert as_weights([1, 0], 2) == Constant((1.0, 0.0))
    assert as_weights(SCHEDULE, 3) is SCHEDULE


@pytest.mark.parametrize("weights", [(0.5, 0.5), SCHEDULE, GRID, EVENLY])
def test_every_member_needs_a_weight(weights: Any) -> None:
    with pytest.raises(ConfigError, match="weights for 5 members; give one per member, in their order"):
        as_weights(weights, 5)


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (0.0, (0.0, 1.0, 0.0)),
        (0.2, (0.0, 1.0, 0.0)),
        (0.25, (0.125, 0.875, 0.0)),
        (0.4, (0.5, 0.5, 0.0)),
        (0.7, (0.8, 0.2, 0.0)),
        (0.8, (0.9, 0.1, 0.0)),
        (1.0, (0.9, 0.1, 0.0)),
    ],
)
def test_a_schedule_is_linear_between_levels_and_constant_beyond(s: float, expected: Any) -> None:
    assert at_level(SCHEDULE, s) == pytest.approx(expected)


def test_a_schedule_of_one_level_is_a_constant() -> None:
    for s in (0.0, 0.5, 1.0):
        assert at_level(Schedule((0.5,), ((0.3, 0.7),)), s) == (0.3, 0.7)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (Constant((0.0, 1.0, -0.0)), [True, False, True]),
        (SCHEDULE, [False, False, True]),
        (GRID, [False, False, True]),
        (EVENLY, [False, False]),
    ],
)
def test_who_never_counts(weights: Any, expected: list[bool]) -> None:
    assert never_used(weights) == expected
    assert members_of(weights) == len(expected)


def test_the_weights_of_some_members() -> None:
    assert select(Constant((0.1, 0.2, 0.7)), [2, 0]) == Constant((0.7, 0.1))
    assert select(SCHEDULE, [1]) == Schedule((0.2, 0.4, 0.8), ((1.0,), (0.5,), (0.1,)))
    assert select(GRID, [0, 1]) == PerDimension(((1.0, 0.5), (0.0, 0.5)))
    assert select(EVENLY, [0]) is EVENLY


def test_sums_are_taken_where_they_are_known() -> None:
    assert sums(Constant((1.5, -0.25))) == [1.25]
    assert sums(SCHEDULE) == pytest.approx([1.0, 1.0, 1.0])
    assert sums(GRID) == [1.0, 1.0]
    assert sums(EVENLY) == []
    for weights in (Constant((0.1,) * 10), Constant((1.7, -0.7)), SCHEDULE, GRID, EVENLY):
        check_sum(weights)


@pytest.mark.parametrize(
    ("weights", "total"),
    [
        (Constant((0.5, 0.4)), "0.9"),
        (Schedule((0.1, 0.9), ((0.5, 0.5), (1.0, 0.5))), "1.5"),
        (PerDimension(((0.5, 1.0), (0.5, 1.0))), "2"),
    ],
)
def test_a_sum_that_is_not_one_is_named_where_it_occurs(weights: Any, total: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"must sum to 1, got {total} from .*; divide them by their sum, or"
    ):
        check_sum(weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(()), "finite numbers, got"),
        (lambda: Constant((float("inf"), 0.0)), "finite numbers, got"),
        (lambda: Schedule((), ()), "as many weights as levels, got 0 for 0"),
        (lambda: Schedule((0.5,), ((1.0,), (1.0,))), "as many weights as levels, got 2 for 1"),
        (lambda: Schedule((0.5, 0.5), ((1.0,), (1.0,))), r"increasing in 0\.\.1"),
        (lambda: Schedule((0.5, 1.5), ((1.0,), (1.0,))), r"increasing in 0\.\.1"),
        (lambda: Schedule((0.1, 0.5), ((1.0,), (0.5, 0.5))), "one weight per member"),
        (lambda: Schedule((0.1,), ((float("nan"),),)), "finite numbers, got"),
        (lambda: PerDimension(()), "one weight per number of the action"),
        (lambda: PerDimension(((1.0,), (0.0, 1.0))), "one weight per number of the action"),
    ],
)
def test_impossible_weights_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_weights_of_what_is_seen() -> None:
    found = observed(answering([[0.25, 0.75], [2.0, -1.0]]), {}, 2, any_total=False)
    assert found.tolist() == [[0.25, 0.75], [2.0, -1.0]]
    assert observed(answering([[1, 1]]), {}, 1, any_total=True).dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "any_total", "message"),
    [
        ([0.5, 0.5], False, r"have shape \(2,\); needed is \(2, 2\): batch, members"),
        (
            [[0.5, 0.5], [0.5, 0.4]],
            False,
            r"observation 1 are \[0\.5, 0\.4.*; they must be finite and sum to 1",
        ),
        ([[float("nan"), 0.5], [0.5, 0.5]], True, "observation 0 are .*; they must be finite"),
    ],
)
def test_impossible_weights_of_what_is_seen(values: Any, any_total: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        observed(answering(values), {}, 2, any_total=any_total)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (Constant((1 / 3, 2 / 3)), "0.333"),
        (SCHEDULE, "0@s=0.2 0.5@s=0.4 0.9@s=0.8"),
        (GRID, "[1 0.5]"),
        (EVENLY, "observed"),
    ],
)
def test_a_members_weight_in_words(weights: Any, words: str) -> None:
    assert described(weights, 0) == words
