"""What flows between rooms: names, shapes, units, bounds, rates and window lengths.

A dataset, a task, a policy and a robot each carry a `Spec`. Connecting two that disagree raises a `SpecError`
that names the field and both values, before anything moves.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from .errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Field:
    """One named array, described per control step.

    Attributes:
        shape: shape of one step, without batch and time.
        dtype: numpy name of the element type; `str` for text, one string per step and of shape ().
        unit: SI symbol, `rad`, `px`, or `1` for a pure number; empty where unknown.
        low: lower bound of each element along the last axis, or None where unbounded.
        high: upper bound, likewise.
        names: a name for each element along the last axis, or empty.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.is_text and self.shape:
            raise SpecError(f"text is one string per step, of shape (), got {self.shape}")
        if any(n < 1 for n in self.shape):
            raise SpecError(f"shape must hold positive sizes, got {self.shape}")
        width = self.shape[-1] if self.shape else 1
        for what in ("low", "high", "names"):
            value = getattr(self, what)
            if value and len(value) != width:
                raise SpecError(
                    f"{what} needs {width} entries for shape {self.shape}, got {len(value)}: {value}"
                )
        if self.low is not None and self.high is not None:
            bad = [i for i, (lo, hi) in enumerate(zip(self.low, self.high, strict=True)) if not lo <= hi]
            if bad:
                raise SpecError(
                    f"low must not exceed high; element {bad[0]} has low {self.low} and high {self.high}"
                )

    @property
    def is_text(self) -> bool:
        """Whether it holds strings instead of numbers."""
        return self.dtype == "str"

    @property
    def is_image(self) -> bool:
        """Whether it holds pictures."""
        return not self.is_text and (len(self.shape) > 2 or self.dtype == "uint8")

    @property
    def size(self) -> int:
        """Number of elements in one step."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The contract of one dataset, task, policy or robot.

    Attributes:
        observation: the observation's fields by key (`state`, `environment`, `image.<camera>`, ...).
        action: one action.
        control_hz: control steps per second.
        observation_steps: O, how many latest observations a policy sees.
        horizon: H, how many actions a policy predicts.
        execute: E, how many of them are executed before the next prediction.
        start: control steps from now to the first action of a chunk. 0 starts the chunk at the current step;
            Diffusion Policy's release starts it at the oldest observation, `1 - observation_steps`.
    """

    observation: Mapping[str, Field]
    action: Field
    control_hz: float
    observation_steps: int = 1
    horizon: int = 1
    execute: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.control_hz < math.inf:
            raise SpecError(f"control_hz must be positive and finite, got {self.control_hz}")
        for what in ("observation_steps", "horizon", "execute"):
            if getattr(self, what) < 1:
                raise SpecError(f"{what} must be at least 1, got {getattr(self, what)}")
        if len(self.action.shape) != 1:
            raise SpecError(f"an action is a vector, got shape {self.action.shape}")
        if not 1 - self.observation_steps <= self.start <= 0:
            raise SpecError(f"start must lie in [{1 - self.observation_steps}, 0], got {self.start}")
        if self.execute - self.start > self.horizon:
            raise SpecError(
                f"execute {self.execute} actions from now needs horizon >= {self.execute - self.start} "
                f"with start {self.start}, got horizon {self.horizon}"
            )

    @property
    def action_dim(self) -> int:
        """A, the width of one action."""
        return self.action.shape[0]

    def chunked(self, *, observation_steps: int, horizon: int, execute: int, start: int = 0) -> Self:
        """The same fields with a policy's window lengths."""
        return replace(
            self, observation_steps=observation_steps, horizon=horizon, execute=execute, start=start
        )

    def keep(self, keys: tuple[str, ...]) -> Self:
        """The same spec with only these observation keys."""
        missing = [key for key in keys if key not in self.observation]
        if missing:
            raise SpecError(f"observation key {missing[0]!r} is not among {sorted(self.observation)}")
        return replace(self, observation={key: self.observation[key] for key in keys})

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON and YAML."""
        return asdict(replace(self, observation=dict(self.observation)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; unknown keys are an error."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SpecError(f"unknown spec key {unknown[0]!r}; allowed are {sorted(known)}")
        try:
            observation = {key: _field(value) for key, value in values["observation"].items()}
            return cls(**{**values, "observation": observation, "action": _field(values["action"])})
        except (KeyError, TypeError) as error:
            raise SpecError(f"malformed spec: {error}; expected the keys {sorted(known)}") from error

    def to_json(self) -> str:
        """Readable, with stable key order."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`."""
        return cls.from_dict(json.loads(text))


def _field(values: Mapping[str, Any]) -> Field:
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in values.items()}
    return Field(**tuples)


def check_connection(
    user: Spec, provider: Spec, *, user_name: str = "policy", provider_name: str = "task"
) -> None:
    """Raise unless everything `user` needs is what `provider` offers.

    The user may read fewer observation keys than are offered. Window lengths belong to the user and are not
    compared. Units, names and bounds are compared where both sides state them.

    Raises:
        SpecError: naming the first field that disagrees and both values.
    """
    for key, wanted in user.observation.items():
        if key not in provider.observation:
            raise SpecError(
                f"the {user_name} needs observation {key!r}; the {provider_name} offers {sorted(provider.observation)}"
            )
        check_field(f"observation {key!r}", wanted, provider.observation[key], user_name, provider_name)
    check_field("action", user.action, provider.action, user_name, provider_name)
    if not math.isclose(user.control_hz, provider.control_hz, rel_tol=1e-6):
        raise SpecError(
            f"control_hz differs: {user_name} {user.control_hz}, {provider_name} {provider.control_hz}"
        )


def check_field(what: str, a: Field, b: Field, a_name: str, b_name: str) -> None:
    """Raise unless two fields agree in shape and type, and in whatever else both of them state.

    Raises:
        SpecError: naming what disagrees and both values.
    """
    for attribute in ("shape", "dtype", "unit", "names", "low", "high"):
        left, right = getattr(a, attribute), getattr(b, attribute)
        stated = attribute in ("shape", "dtype") or (bool(left) and bool(right))
        if stated and left != right:
            raise SpecError(f"{what} {attribute} differs: {a_name} {left}, {b_name} {right}")
