"""Confidence intervals against textbook numbers and limit cases."""

import math

import pytest

from sensorimotor.data.errors import DataError
from sensorimotor.data.intervals import Interval, mean_interval, paired_interval, wilson


def test_wilson_matches_a_worked_example() -> None:
    """81 of 263 (Newcombe, Statistics in Medicine 17, 1998): 0.2553 to 0.3662."""
    interval = wilson(81, 263)
    assert interval.low == pytest.approx(0.2553, abs=1e-4)
    assert interval.high == pytest.approx(0.3662, abs=1e-4)


def test_wilson_keeps_a_width_at_the_ends() -> None:
    """0 of 20 and 20 of 20 mirror each other; Newcombe gives 0.1611 for 0 of 20."""
    none, all_ = wilson(0, 20), wilson(20, 20)
    assert none.low == 0.0
    assert all_.high == 1.0
    assert none.high == pytest.approx(0.1611, abs=1e-4)
    assert all_.low == pytest.approx(1 - none.high)


def test_t_interval_of_three_seeds() -> None:
    """Mean 2, standard deviation 1, n = 3: half width 4.303 / sqrt 3."""
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.value == 2.0
    assert interval.high - 2.0 == pytest.approx(4.303 / math.sqrt(3))


@pytest.mark.parametrize(("count", "quantile"), [(17, 2.1199), (31, 2.0423), (101, 1.9840), (1001, 1.9623)])
def test_quantile_beyond_the_table_is_close_to_students(count: int, quantile: float) -> None:
    values = [float(i) for i in range(count)]
    interval = mean_interval(values)
    deviation = math.sqrt(sum((v - interval.value) ** 2 for v in values) / (count - 1))
    assert (interval.high - interval.value) * math.sqrt(count) / deviation == pytest.approx(
        quantile, abs=3e-3
    )


def test_a_single_value_has_no_bounds_but_what_is_possible() -> None:
    assert mean_interval([0.3]).high == math.inf
    assert mean_interval([0.3], within=(0.0, 1.0)) == Interval(0.3, 0.0, 1.0, 1)


def test_an_interval_does_not_leave_what_is_possible() -> None:
    scores = [1.0, 1.0, 1.0, 0.9]
    free, bounded = mean_interval(scores), mean_interval(scores, within=(0.0, 1.0))
    assert free.high > 1.0
    assert bounded == Interval(free.value, free.low, 1.0, 4)


@pytest.mark.parametrize("bad", [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="proportion"):
        wilson(*bad)


@pytest.mark.parametrize("bad", [[], [float("nan")]])
def test_impossible_values_are_refused(bad: list[float]) -> None:
    with pytest.raises(DataError, match="finite"):
        mean_interval(bad)


def test_paired_proportions_match_the_published_example() -> None:
    # Newcombe 1998: 20 both, 12 and 2 one alone, 16 neither: 0.2 [0.0562, 0.3292]
    ours = [1.0] * 32 + [0.0] * 18
    theirs = [1.0] * 20 + [0.0] * 12 + [1.0] * 2 + [0.0] * 16
    found = paired_interval(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0562, 0.3292), abs=5e-5)
    other = paired_interval(theirs, ours)
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


def test_pairs_that_never_differed_may_yet() -> None:
    found = paired_interval([1.0] * 5, [1.0] * 5)
    assert found.value == 0.0
    assert found.low < -0.3
    assert found.high > 0.3


def test_scores_in_pairs_are_compared_by_their_differences() -> None:
    ours, theirs = [0.5, 0.7, 0.2], [0.4, 0.4, 0.1]
    assert paired_interval(ours, theirs) == mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])
    with pytest.raises(DataError, match=r"as many values on both sides, got \(3,\) and \(2,\)"):
        paired_interval(ours, theirs[:2])
