"""How much each member counts: one number, one per noise level, per action dimension, or a function of what is seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import Tensor

from ..data.errors import ConfigError

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Constant:
    """The same everywhere: GPC (arXiv 2510.01068).

    Attributes:
        values: (M,).
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        check_finite(self.values)


@dataclass(frozen=True)
class Schedule:
    """Other weights at other noise levels.

    Attributes:
        levels: path positions s, increasing in 0..1.
        values: (levels, M); linear in between, constant beyond the ends.
    """

    levels: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.levels or len(self.levels) != len(self.values):
            raise ConfigError(
                f"a schedule needs as many weights as levels, got {len(self.values)} for {len(self.levels)}"
            )
        steps = zip(self.levels, self.levels[1:], strict=False)
        if not all(0 <= s <= 1 for s in self.levels) or not all(a < b for a, b in steps):
            raise ConfigError(f"levels are path positions, increasing in 0..1, got {self.levels}")
        for row in self.values:
            check_finite(row)
        if len({len(row) for row in self.values}) != 1:
            raise ConfigError(f"every level needs one weight per member, got {self.values}")


@dataclass(frozen=True)
class PerDimension:
    """Other weights for other numbers of an action, such as one member for the arm and one for the gripper.

    Attributes:
        values: (M, A).
    """

    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for row in self.values:
            check_finite(row)
        if not self.values or len({len(row) for row in self.values}) != 1:
            raise ConfigError(f"every member needs one weight per number of the action, got {self.values}")


@dataclass(frozen=True)
class Observed:
    """Weights that depend on what is seen, such as which camera is covered.

    Attributes:
        function: from observations, key -> (B, O, ...), to weights (B, M); called once per control step.
        count: M.
    """

    function: Callable[[Mapping[str, Any]], Tensor]
    count: int


Weights = Constant | Schedule | PerDimension | Observed


def as_weights(given: Weights | Sequence[float] | None, count: int) -> Weights:
    """Weights for M members; evenly where none are given.

    Raises:
        ConfigError: for another number of weights, or numbers that are not finite.
    """
    if given is None:
        given = Constant((1 / count,) * count)
    elif not isinstance(given, Weights):
        given = Constant(tuple(float(w) for w in given))
    found = members_of(given)
    if found != count:
        raise ConfigError(f"{found} weights for {count} members; give one per member, in their order")
    return given


def members_of(weights: Weights) -> int:
    """M."""
    match weights:
        case Constant(values):
            return len(values)
        case Schedule(_, values):
            return len(values[0])
        case PerDimension(values):
            return len(values)
        case Observed(_, count):
            return count
        case _:
            assert_never(weights)


def sums(weights: Weights) -> list[float]:
    """Every sum over the members that is known beforehand."""
    match weights:
        case Constant(values):
            return [math.fsum(values)]
        case Schedule(_, values):
            return [math.fsum(row) for row in values]
        case PerDimension(values):
            return [math.fsum(column) for column in zip(*values, strict=True)]
        case Observed():
            return []
        case _:
            assert_never(weights)


def check_sum(weights: Weights) -> None:
    """Raise unless they sum to 1 wherever that is known.

    Raises:
        ConfigError: naming the sum, and what to do.
    """
    for total in sums(weights):
        if abs(total - 1) > _ROUNDING:
            raise ConfigError(
                f"weights must sum to 1, got {total:.6g} from {_written(weights)}; divide them by their sum, or pass "
                "total='any' to sharpen or flatten the product of the members on purpose"
            )


def never_used(weights: Weights) -> list[bool]:
    """Of each member, whether it never counts, so that it need not be asked."""
    match weights:
        case Constant(values):
            return [w == 0 for w in values]
        case Schedule(_, values):
            return [all(w == 0 for w in column) for column in zip(*values, strict=True)]
        case PerDimension(values):
            return [all(w == 0 for w in row) for row in values]
        case Observed(_, count):
            return [False] * count
        case _:
            assert_never(weights)


def at_level(weights: Schedule, s: float) -> tuple[float, ...]:
    """The weights at s."""
    levels, values = weights.levels, weights.values
    if s <= levels[0]:
        return values[0]
    for low, high, before, after in zip(levels, levels[1:], values, values[1:], strict=False):
        if s <= high:
            share = (s - low) / (high - low)
            return tuple(a + share * (b - a) for a, b in zip(before, after, strict=True))
    return values[-1]


def observed(weights: Observed, observation: Mapping[str, Any], batch: int, *, any_total: bool) -> Tensor:
    """(B, M) weights of what is seen.

    Raises:
        ConfigError: if the function answers with anything but finite weights that sum to 1.
    """
    values = torch.as_tensor(weights.function(observation)).float()
    if values.shape != (batch, weights.count):
        raise ConfigError(
            f"the weights of an observation have shape {tuple(values.shape)}; needed is {(batch, weights.count)}: "
            "batch, members"
        )
    total = values.sum(dim=1)
    bad = ~torch.isfinite(values).all(dim=1)
    if not any_total:
        bad |= (total - 1).abs() > 1e-4
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ConfigError(
            f"the weights of observation {row} are {values[row].tolist()}; they must be finite and sum to 1 "
            "(torch.softmax makes such)"
        )
    return values


def check_finite(values: Sequence[float]) -> None:
    """Raise for weights that are not finite, or none at all."""
    if not values or not all(math.isfinite(w) for w in values):
        raise ConfigError(f"weights must be finite numbers, got {tuple(values)}")


def _written(weights: Weights) -> str:
    return str(getattr(weights, "values", weights))


def described(weights: Weights, member: int) -> str:
    """A member's weight, for people."""
    match weights:
        case Constant(values):
            return f"{values[member]:.3g}"
        case Schedule(levels, values):
            return " ".join(f"{row[member]:.3g}@s={s:.3g}" for s, row in zip(levels, values, strict=True))
        case PerDimension(values):
            return "[" + " ".join(f"{w:.3g}" for w in values[member]) + "]"
        case Observed():
            return "observed"
        case _:
            assert_never(weights)


def select(weights: Weights, members: Sequence[int]) -> Weights:
    """The weights of some members."""
    match weights:
        case Constant(values):
            return Constant(tuple(values[i] for i in members))
        case Schedule(levels, values):
            return Schedule(levels, tuple(tuple(row[i] for i in members) for row in values))
        case PerDimension(values):
            return PerDimension(tuple(values[i] for i in members))
        case Observed():
            return weights  # never known not to be used
        case _:
            assert_never(weights)
