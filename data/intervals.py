"""95 % confidence intervals for what is reported: success rates and means over episodes or seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    count: int

    def percent(self) -> str:
        """`82.0 % [68.8, 90.6]`."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def decimal(self, digits: int = 3) -> str:
        """`0.950 [0.941, 0.959]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def wilson(successes: int, count: int) -> Interval:
    """Wilson's score interval of a proportion; sensible at 0 and 1, where the normal one has no width.

    Source: E. B. Wilson, JASA 22 (1927).
    """
    if count < 1 or not 0 <= successes <= count:
        raise DataError(
            f"a proportion needs 0 <= successes <= count with count >= 1, got {successes} of {count}"
        )
    p, z2 = successes / count, _Z * _Z
    centre = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    # The bounds are exactly 0 and 1 at the ends, up to rounding.
    return Interval(
        p, 0.0 if successes == 0 else centre - half, 1.0 if successes == count else centre + half, count
    )


def mean_interval(
    values: Sequence[float] | NDArray[np.floating], *, within: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """Student's t interval of a mean; of a single value, all that is possible.

    Args:
        values: one per observation.
        within: what a value can be; the interval does not leave it.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise DataError(f"a mean needs one or more finite values, got {x.tolist()[:8]}")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, *within, 1)
    quantile = _T[x.size - 2] if x.size - 2 < len(_T) else _Z + 2.4 / (x.size - 2)
    half = quantile * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval(mean, max(within[0], mean - half), min(within[1], mean + half), int(x.size))


def paired_interval(
    ours: Sequence[float] | NDArray[np.floating], theirs: Sequence[float] | NDArray[np.floating]
) -> Interval:
    """Of the mean difference of two that met the same starts: successes by their score intervals, other values by Student's t.

    Student's interval of differences that are mostly 0 is too narrow, and has no width where all are.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998), the tenth method for paired proportions.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise DataError(f"pairs need as many values on both sides, got {a.shape} and {b.shape}")
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        return mean_interval(a - b)
    n = a.size
    one, two = wilson(int(a.sum()), n), wilson(int(b.sum()), n)
    both, neither = float((a * b).sum()), float(((1 - a) * (1 - b)).sum())
    cross = both * neither - float((a * (1 - b)).sum()) * float(((1 - a) * b).sum())
    size = math.sqrt(a.sum() * (n - a.sum()) * b.sum() * (n - b.sum()))
    phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / size if size else 0.0
    difference = one.value - two.value
    return Interval(
        difference,
        difference - _together(one.value - one.low, two.high - two.value, phi),
        difference + _together(one.high - one.value, two.value - two.low, phi),
        n,
    )


def _together(one: float, two: float, phi: float) -> float:
    """Half a width from two that go along with each other by phi."""
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))
