"""What a file of ours carries beside its arrays, so that a round trip through any format is exact."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..episodes import Array, Episodes
from ..errors import DataError
from ..lazy import is_lazy
from ..spec import Spec, check_connection

DESCRIPTION_KEY = "sensorimotor"  # attribute or member that holds the description
NUMBERS = "fiub"  # NumPy kinds that may be stored: floating point, signed, unsigned, boolean
TEXT = "U"  # and, for observations alone, text


@dataclass(frozen=True, kw_only=True)
class Description:
    """Everything about a set of episodes that is not an array.

    Attributes:
        spec: fields and rate.
        extra: the extra arrays' names, in order, with the shape of one step.
        optional: which of reward, terminated and success are there.
        metadata: plain JSON values.
    """

    spec: Spec
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, episodes: Episodes, *, reserved: Sequence[str] = ()) -> Self:
        """Describe episodes; refuses names that no file could keep apart, and `reserved` ones."""
        names = [
            *episodes.observation,
            "action",
            "reward",
            "terminated",
            "success",
            *reserved,
            *episodes.extra,
        ]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"array name {name!r} is taken; rename the observation or extra key")
            if not re.fullmatch(r"[\w-][\w.-]*", name):
                raise DataError(
                    f"array name {name!r} cannot be stored; use letters, digits, '_', '-' and '.'"
                )
        for name, array in columns(episodes).items():
            native(array, name, text=name in episodes.observation)
        optional = tuple(n for n in ("reward", "terminated", "success") if getattr(episodes, n) is not None)
        return cls(
            spec=episodes.spec,
            extra={key: array.shape[1:] for key, array in episodes.extra.items()},
            optional=optional,
            metadata=dict(episodes.metadata),
        )

    def to_json(self) -> str:
        """One JSON text."""
        values = {"spec": self.spec.to_dict(), "extra": self.extra, "optional": self.optional}
        try:
            return json.dumps({**values, "metadata": self.metadata})
        except TypeError as error:
            raise DataError(f"metadata must hold plain JSON values only: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`."""
        try:
            values = json.loads(text)
            return cls(
                spec=Spec.from_dict(values["spec"]),
                extra={key: tuple(shape) for key, shape in values["extra"].items()},
                optional=tuple(values["optional"]),
                metadata=values["metadata"],
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise DataError(f"its description is malformed ({error}); write the file again") from error


def columns(episodes: Episodes) -> dict[str, Array]:
    """Every per-step array by the name it is stored under."""
    arrays = {**episodes.observation, "action": episodes.action, **episodes.extra}
    optional = {name: getattr(episodes, name) for name in ("reward", "terminated")}
    return arrays | {name: array for name, array in optional.items() if array is not None}


def assemble(
    description: Description,
    arrays: Mapping[str, Array],
    ends: Array,
    success: Array | None,
    *,
    spec: Spec | None = None,
    control_hz: float | None = None,
    choice: object = None,
) -> Episodes:
    """Episodes from a file of ours: the inverse of `columns`; what the caller states must be what it holds."""
    if choice is not None:
        raise DataError(
            "this file describes itself; observation= is for files of other projects, leave it out"
        )
    named = (*description.spec.observation, "action", *description.extra, *description.optional)
    missing = [name for name in named if name not in arrays and name != "success"]
    if missing:
        raise DataError(f"array {missing[0]!r} is described but absent; it holds {sorted(arrays)}")
    episodes = Episodes(
        spec=description.spec,
        observation={key: arrays[key] for key in description.spec.observation},
        action=arrays["action"],
        ends=whole_ends(ends),
        reward=arrays["reward"] if "reward" in description.optional else None,
        terminated=arrays["terminated"] if "terminated" in description.optional else None,
        success=success if "success" in description.optional else None,
        extra={key: arrays[key] for key in description.extra},
        metadata=description.metadata,
    )
    return expect(episodes, spec=spec, control_hz=control_hz)


def expect(episodes: Episodes, *, spec: Spec | None, control_hz: float | None) -> Episodes:
    """Check what the caller states; observations that `spec` does not name become extra arrays."""
    agreed_rate(episodes.spec.control_hz, control_hz)
    if spec is None:
        return episodes
    check_connection(spec, episodes.spec, user_name="given spec", provider_name="file")
    kept = tuple(spec.observation)
    unused = {key: array for key, array in episodes.observation.items() if key not in kept}
    return replace(
        episodes,
        spec=episodes.spec.keep(kept),
        observation={key: episodes.observation[key] for key in kept},
        extra={**episodes.extra, **unused},
    )


def agreed_rate(recorded: float | None, stated: float | None) -> float | None:
    """The control rate of the file or of the caller; an error where both are known and differ."""
    if recorded is not None and stated is not None and not math.isclose(recorded, stated, rel_tol=1e-6):
        raise DataError(f"it was recorded at {recorded} Hz, control_hz says {stated}; leave control_hz out")
    return stated if recorded is None else recorded


def native(array: Array, name: str, *, text: bool = False) -> Array:
    """The array in this machine's byte order; numbers and booleans only, or text where it is allowed."""
    if array.dtype.kind not in NUMBERS and not (text and array.dtype.kind == TEXT):
        raise DataError(f"{name} holds {array.dtype}; arrays must hold numbers or booleans")
    if is_lazy(array):
        return array  # its rows are in this machine's byte order
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def whole_ends(ends: Array) -> NDArray[np.int64]:
    """Episode ends as int64."""
    if ends.dtype.kind not in "iu":
        raise DataError(f"episode ends must be whole numbers, got {ends.dtype}")
    return ends.astype(np.int64)
