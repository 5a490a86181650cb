"""What happens when a member fails: it is named, or the others go on without it; never silently.

A draw in which a member fails begins again without it, from the same noise, so that no chunk is half of one
composition and half of another.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..data.errors import ConfigError, SensorimotorError
from ..data.schema import nearest

Fallback = Literal["none", "others"]
_FALLBACKS = ("none", "others")


class MemberError(SensorimotorError, RuntimeError):
    """A member of a composition failed; the message names it and says why.

    Attributes:
        member: its name; in a composition of compositions the innermost one's.
        ways: how to go on without it, the innermost composition first.
    """

    def __init__(self, message: str, member: str) -> None:
        """Raised by `member_fault`."""
        super().__init__(message)
        self.member = member
        self.ways: list[Callable[[], bool]] = []


class NotFiniteError(SensorimotorError, ArithmeticError):
    """A member answered with NaN or infinity."""


class Crew(Protocol):
    """The members of one composition while a chunk is drawn.

    Attributes:
        parts: what each member knows; None for one that is out.
    """

    parts: list[Any]


def check_fallback(fallback: Fallback) -> None:
    """Raise for an unknown fallback."""
    if fallback not in _FALLBACKS:
        raise ConfigError(f"unknown fallback {fallback!r}; {nearest(fallback, _FALLBACKS)}")


@contextmanager
def member_fault(name: str, kind: str, doing: str) -> Iterator[None]:
    """Turn what goes wrong inside into a `MemberError` that names the member."""
    try:
        yield
    except MemberError:
        raise
    except Exception as error:
        raise MemberError(f"member {name!r} ({kind}) failed to {doing}: {error}", name) from error


def is_finite(answer: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity: one number tells, since neither of them leaves a sum finite."""
    return bool(answer.sum().isfinite())


def check_finite(answer: Tensor) -> Tensor:
    """The answer of a member.

    Raises:
        NotFiniteError: if it holds NaN or infinity.
    """
    if not is_finite(answer):
        bad = int((~answer.isfinite()).sum())
        raise NotFiniteError(f"{bad} of {answer.numel()} numbers of its answer are not finite")
    return answer


def without(crew: Crew, number: int, name: str, faults: Counter[str]) -> bool:
    """Put one member out for the rest of a draw, counted; False if it was the last."""
    if sum(part is not None for part in crew.parts) < 2:
        return False
    crew.parts[number] = None
    count_fault(faults, name)
    return True


def count_fault(faults: Counter[str], name: str) -> None:
    """Count a fault, and say it the first time."""
    faults[name] += 1
    if faults[name] == 1:
        warnings.warn(f"member {name!r} failed and the others went on without it; see `faults`", stacklevel=3)


def drawn_without_failing(draw: Callable[[], Tensor], generator: torch.Generator) -> Tensor:
    """What `draw` returns, begun again without a member that fails, where a composition allows that.

    Raises:
        MemberError: if none does.
    """
    state = generator.get_state()
    while True:
        try:
            return draw()
        except MemberError as error:
            if not any(way() for way in error.ways):
                raise
            generator.set_state(state)
