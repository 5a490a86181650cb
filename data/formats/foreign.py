"""Episodes from files that are not ours: arrays are sorted by the usual names, and what is not said is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..episodes import Array, Episodes
from ..errors import DataError, SpecError
from ..instructions import INSTRUCTION
from ..schema import nearest
from ..spec import Field, Spec
from .description import NUMBERS, native, whole_ends
from .opening import note

ROLES = {
    "action": ("action", "actions"),
    "reward": ("reward", "rewards", "next.reward"),
    "terminated": ("terminated", "terminals", "dones", "next.done"),
}
_USUAL_NAMES = {"observations": "state", "obs": "state", "img": "image.camera", "image": "image.camera"}
Choice = Mapping[str, str | Sequence[str]]  # our observation key -> name in the file, or names to join


def sort_columns(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Flat foreign arrays by the usual names: (observations, {action, reward, terminated})."""
    roles: dict[str, Array] = {}
    observation: dict[str, Array] = {}
    for name, array in arrays.items():
        role = next((role for role, names in ROLES.items() if name in names), None)
        if role is None:
            key = _USUAL_NAMES.get(name, name)
            observation[name if key in arrays or key in observation else key] = array
        elif role in roles:
            raise DataError(f"two arrays could be the {role}: one of {ROLES[role]} is enough")
        else:
            roles[role] = array
    return observation, roles


def derive(
    observation: Mapping[str, Array],
    roles: Mapping[str, Array],
    extra: Mapping[str, Array],
    ends: Array,
    *,
    spec: Spec | None,
    control_hz: float | None,
    choice: Choice | None,
    success: Array | None = None,
    names: Mapping[str, tuple[str, ...]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Episodes:
    """Episodes from a foreign file.

    Args:
        observation: what the file holds as observations, by its own names; each (N, ...).
        roles: `action` (N, A), and if present `reward` and `terminated` (N,).
        extra: other arrays of length N.
        ends: (M,) exclusive ends.
        spec: what the arrays must be; derived from them if absent.
        control_hz: control steps per second, if neither the file nor `spec` says so.
        choice: our observation keys and the file's names for them; the rest becomes `extra`.
        success: (M,) bool, where the file says it.
        names: a name per element, by key.
        metadata: plain JSON values to keep.
    """
    if "action" not in roles:
        raise DataError(f"no array is named {' or '.join(ROLES['action'])}; it holds {sorted(observation)}")
    if choice is None and spec is not None:
        choice = {key: key for key in spec.observation}
        if missing := sorted(set(choice) - set(observation)):
            raise SpecError(
                f"the given spec needs observation {missing[0]!r}; {nearest(missing[0], observation)}"
            )
    if choice is not None:
        observation, extra = _choose(observation, extra, choice)
    metadata = dict(metadata or {})
    if words := [key for key, array in extra.items() if array.dtype.kind not in NUMBERS]:
        note(metadata, f"arrays that do not hold numbers are left out: {words}")
    observation = {
        key: _as_image(key, native(array, key, text=key == INSTRUCTION and array.ndim == 1))
        for key, array in observation.items()
    }
    action = native(roles["action"], "action")
    action = action[:, None] if action.ndim == 1 else action
    reward = native(roles["reward"], "reward").reshape(len(action)) if "reward" in roles else None
    if spec is None:
        if control_hz is None:
            raise DataError("the control rate is not recorded here; pass control_hz, in steps per second")
        names = names or {}
        spec = Spec(
            observation={key: _field(array, names.get(key, ())) for key, array in observation.items()},
            action=_field(action, names.get("action", ())),
            control_hz=control_hz,
        )
    return Episodes(
        spec=spec.chunked(observation_steps=1, horizon=1, execute=1),
        observation=observation,
        action=action,
        ends=whole_ends(ends),
        reward=reward,
        terminated=_as_bool(roles["terminated"]) if "terminated" in roles else None,
        success=success,
        extra={key: native(array, key) for key, array in extra.items() if key not in words},
        metadata=metadata,
    )


def _choose(
    observation: Mapping[str, Array], extra: Mapping[str, Array], choice: Choice
) -> tuple[dict[str, Array], dict[str, Array]]:
    chosen: dict[str, Array] = {}
    used: set[str] = set()
    for key, source in choice.items():
        parts = (source,) if isinstance(source, str) else tuple(source)
        for part in parts:
            if part not in observation:
                raise DataError(f"observation {key!r} asks for {part!r}; {nearest(part, observation)}")
        used.update(parts)
        arrays = [observation[part] for part in parts]
        chosen[key] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    left = {key: array for key, array in observation.items() if key not in used and key not in chosen}
    return chosen, {**extra, **left}


def _as_image(key: str, array: Array) -> Array:
    """Images that a file keeps as whole floating-point numbers 0..255, as the uint8 they are."""
    if not key.startswith("image.") or array.dtype.kind != "f":
        return array
    small = array.astype(np.uint8)
    if not np.array_equal(small, array):
        raise DataError(f"{key} holds {array.dtype} that are not whole numbers 0..255; convert it to uint8")
    return small


def _as_bool(array: Array) -> NDArray[np.bool_]:
    flags = array.reshape(len(array))
    if not np.isin(flags, (0, 1)).all():
        raise DataError(f"terminated must be 0 or 1, got values from {flags.min()} to {flags.max()}")
    return flags.astype(bool)


def _field(array: Array, names: tuple[str, ...]) -> Field:
    width = array.shape[-1] if array.ndim > 1 else 1
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    return Field(shape=array.shape[1:], dtype=dtype, names=names if len(names) == width else ())
