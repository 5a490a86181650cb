"""The space a composition's chunks live in, and how a member's own space lies to it.

Every policy scales actions affinely, `z = (action - origin - offset) / scale`, where the origin is an observation or
nothing. Of two such spaces one follows from the other by `z' = (z - b) / d`. A noised `x_s` may be carried over only
where d is one number: then it sits in the other space at `s' = s / (s + (1 - s) d)`, at
`x' = (x - (1 - s) b) / (s + (1 - s) d)`, with the same noise. With a d per element, every element would need a noise
level of its own, which no network was trained for.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ..data.errors import NormalizerError, SpecError
from ..data.normalizer import Normalizer
from ..policies.origin import affine_actions
from ..policies.path import spread
from ..policies.policy import GenerativePolicy, Policy

_SAME = 1e-5  # relative differences of scales below this are rounding of float32 statistics


@dataclass(frozen=True)
class Window:
    """Which part of a composition's chunk a member answers for.

    Attributes:
        first: its first row.
        length: H of the member.
        columns: the composition's columns that the member's are, in the member's order.
    """

    first: int
    length: int
    columns: tuple[int, ...]

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.first, self.first + self.length)

    def whole(self, horizon: int, width: int) -> bool:
        """Whether it covers all of a chunk (horizon, width), in order."""
        return self.first == 0 and self.length == horizon and self.columns == tuple(range(width))


@dataclass(frozen=True)
class ActionSpace:
    """An affine space of action chunks.

    Attributes:
        offset: (H, A).
        scale: (H, A), positive.
        relative: the observation whose latest value actions are offsets from, or None.
    """

    offset: Tensor
    scale: Tensor
    relative: str | None

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """The space of a policy.

        Raises:
            NormalizerError: if the policy does not say how its noised actions lie to physical ones.
        """
        if not isinstance(policy, GenerativePolicy) or not affine_actions(policy):
            raise NormalizerError(
                f"{type(policy).__name__} scales actions in a way of its own, so that its noised actions cannot be "
                "compared with another's; keep GenerativePolicy's normalize_action, or rerank it instead of composing it"
            )
        shape = (policy.spec.horizon, policy.spec.action_dim)
        offset, scale = (t.detach().cpu().expand(shape).clone() for t in policy.normalizer.affine("action"))
        return cls(offset, scale, getattr(policy, "relative", None))

    def normalizer(self) -> Normalizer:
        """The same as a normaliser of actions."""
        return Normalizer({"action": (self.offset, self.scale)})


def common_space(spaces: list[ActionSpace], windows: list[Window], shape: tuple[int, int]) -> ActionSpace:
    """The space of a chunk (H, A): the first member's wherever it answers, the next one's where it does not, and so on.

    Rows and columns that only later members cover are rescaled so that those members still meet the first one: their
    statistics are divided by the one number in which they differ from it.
    """
    offset, scale = torch.zeros(shape), torch.ones(shape)
    known = torch.zeros(shape, dtype=torch.bool)
    for space, window in zip(spaces, windows, strict=True):
        part = (window.rows, list(window.columns))
        seen = known[part]
        ratio = (scale[part] / space.scale)[seen].mean() if seen.any() else torch.tensor(1.0)
        offset[part] = torch.where(seen, offset[part], space.offset)
        scale[part] = torch.where(seen, scale[part], space.scale * ratio)
        known[part] = True
    return ActionSpace(offset, scale, spaces[0].relative)


@dataclass(frozen=True)
class Passage:
    """The way from a composition's space to a member's: `z' = (z - b) / d`, `b = (offset' + origin' - offset - origin) / scale`.

    Attributes:
        window: where the member stands.
        d: how much larger the member's scale is.
        b: (h, a) the part of b that no observation changes, or None where it is 0.
        scale: (h, a) of the composition, where origins have to be compared.
    """

    window: Window
    d: float
    b: Tensor | None
    scale: Tensor

    @classmethod
    def between(
        cls, common: ActionSpace, own: ActionSpace, window: Window, *, name: str, reference: str
    ) -> Self:
        """The passage to a member's own space.

        Raises:
            NormalizerError: where scales differ by more than one number, naming the elements.
        """
        part = (window.rows, list(window.columns))
        scale = common.scale[part]
        ratio = own.scale.double() / scale.double()
        low, high = ratio.min(), ratio.max()
        if high > low * (1 + _SAME):
            raise NormalizerError(_mismatch(ratio, window, own.relative != common.relative, name, reference))
        d = float(ratio.mean())
        b = (own.offset - common.offset[part]) / scale
        same = bool(b.abs().max() < 1e-6)
        return cls(window, 1.0 if abs(d - 1) < _SAME else d, None if same else b, scale)

    def shift(self, own_origin: Tensor | None, origin: Tensor | None) -> Tensor | None:
        """B of B rows, from what the member's and the composition's actions are relative to, (B, A) each or None."""
        b = self.b
        if own_origin is None and origin is None:
            return b
        moved = torch.zeros(()) if own_origin is None else own_origin
        if origin is not None:
            moved = moved - origin[:, list(self.window.columns)]
        moved = moved[:, None] / self.scale.to(moved)
        return moved if b is None else moved + b.to(moved)


def _mismatch(ratio: Tensor, window: Window, relative: bool, name: str, reference: str) -> str:
    row, column = divmod(int(ratio.argmin()), ratio.shape[1])
    row_, column_ = divmod(int(ratio.argmax()), ratio.shape[1])
    reason = (
        "one of them predicts offsets from an observation and the other does not"
        if relative
        else "they were trained on other data, or on other episodes of the same, which the seed holds out"
    )
    return (
        f"members {reference!r} and {name!r} scale actions differently, by a factor of {float(ratio.min()):.4g} for number "
        f"{window.columns[column]} of action {window.first + row} and of {float(ratio.max()):.4g} for number "
        f"{window.columns[column_]} of action {window.first + row_}: {reason}. A noised action would be at a different "
        "noise level in each number, which no network was trained for. Train one of them with the other's scales "
        f"(policy.normalizer.like=<run of {reference}>), or rerank instead of composing"
    )


def carry(x: Tensor, s: Tensor, d: float, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """(x', s') in a space `z' = (z - b) / d`, with the same noise; b is (..., H, A)."""
    if d == 1.0:
        return (x if b is None else x - (1 - spread(s, x)) * b), s
    total = s + (1 - s) * d
    wide = spread(total, x)
    moved = x if b is None else x - (1 - spread(s, x)) * b
    return moved / wide, s / total


def carry_velocity_back(x: Tensor, s: Tensor, velocity: Tensor, d: float, b: Tensor | None) -> Tensor:
    """`eps - z` from the member's `eps - z'`, both at (x', s') of the member; `z = d z' + b`."""
    if d != 1.0:
        noise = x + (1 - spread(s, x)) * velocity
        velocity = (1 - d) * noise + d * velocity
    return velocity if b is None else velocity - b


def check_columns(columns: tuple[int, ...], own: int, width: int, name: str) -> None:
    """Raise unless a member's columns name one column of the composition each."""
    if len(columns) != own or len(set(columns)) != own or not all(0 <= c < width for c in columns):
        raise SpecError(
            f"member {name!r} has actions of {own} numbers, its columns are {columns}; "
            f"allowed is one different number in 0..{width - 1} each"
        )


def origin_in(condition: Any) -> Tensor | None:
    """What the actions of a condition's rows are relative to, (B', A) or None."""
    return getattr(condition, "origin", None)
