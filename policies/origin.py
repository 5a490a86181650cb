"""What actions are relative to, and the space they are learned in: scaled, and perhaps offsets from what is observed.

Statistics of the action may be one row for all steps of a chunk, (A,), or one row per step, (H, A).
"""

from typing import Any

from torch import Tensor

from ..data.errors import SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from .policy import GenerativePolicy


def origin_of(observation: Tensor, width: int) -> Tensor:
    """What actions are relative to: the leading A numbers of the latest observation (B, O, D), as (B, A)."""
    return observation[:, -1, :width]


def check_origin(spec: Spec, key: str) -> None:
    """Raise unless an observation can serve as what actions are relative to."""
    field = spec.observation.get(key)
    if field is None or len(field.shape) != 1 or field.size < spec.action_dim:
        raise SpecError(
            f"relative {key!r} must be an observation of at least {spec.action_dim} numbers, the position that "
            f"actions command; there are { {k: f.shape for k, f in spec.observation.items()} }"
        )


def to_offsets(normalizer: Normalizer, action: Tensor, origin: Tensor | None) -> Tensor:
    """Physical actions (B, n, A), the first n of a chunk, to normalised numbers.

    Args:
        normalizer: its statistics of the action are those of the offsets.
        action: physical units.
        origin: what actions are relative to, one row for each chunk or for several in a row; None for absolute ones.
    """
    offset, scale = _affine(normalizer, action.shape[1])
    return (action if origin is None else action - _spread(origin, action)).sub(offset).div(scale)


def from_offsets(normalizer: Normalizer, x: Tensor, origin: Tensor | None) -> Tensor:
    """Inverse of `to_offsets`."""
    offset, scale = _affine(normalizer, x.shape[1])
    action = x * scale + offset
    return action if origin is None else action + _spread(origin, x)


class OffsetActions:
    """How policies scale actions that are offsets from their condition's `origin`, or absolute where it is None."""

    normalizer: Normalizer

    def normalize_action(self, action: Tensor, condition: Any) -> Tensor:
        """Physical actions (B', n, A), the first n of a chunk, to the network's space."""
        return to_offsets(self.normalizer, action, condition.origin)

    def unnormalize_action(self, x: Tensor, condition: Any) -> Tensor:
        """Inverse of `normalize_action`."""
        return from_offsets(self.normalizer, x, condition.origin)


def affine_actions(policy: GenerativePolicy) -> bool:
    """Whether others can map this policy's noisy actions: affinely, per step of the chunk, from an origin."""
    kind = type(policy)
    ways = (OffsetActions, GenerativePolicy)
    return isinstance(getattr(policy, "normalizer", None), Normalizer) and any(
        (kind.normalize_action, kind.unnormalize_action) == (way.normalize_action, way.unnormalize_action)
        for way in ways
    )


def _affine(normalizer: Normalizer, steps: int) -> tuple[Tensor, Tensor]:
    offset, scale = normalizer.affine("action")
    return (offset, scale) if offset.ndim == 1 else (offset[:steps], scale[:steps])


def _spread(origin: Tensor, chunks: Tensor) -> Tensor:
    """(B, 1, A), one row per chunk."""
    repeats = len(chunks) // len(origin)
    return (origin if repeats == 1 else origin.repeat_interleave(repeats, dim=0))[:, None]
