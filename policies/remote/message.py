"""What a policy server and its clients say to each other, inside the frames of `wire`.

The server speaks first: a greeting that says which protocol and policy this is. Then every request, a map with
`version`, `id` and `kind` (`sample`, `encode`, `noise`, `velocity`), gets one answer with its `id`: a `reply`, or an
`error` with a `type` and a `message`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ...data.errors import RemoteError, SpecError
from ...data.normalizer import Normalizer
from ...data.spec import Spec
from ..guidance import ChunkGuide, Guidance
from ..origin import affine_actions
from ..policy import GenerativePolicy, Policy
from .wire import PROTOCOL, WireError

_LONGEST = 100_000  # characters of a text


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """The first frame of a server.

    Attributes:
        policy: name of the policy.
        spec: what it reads and writes.
        statistics: (offset, scale) per key of its normaliser; empty where it has none.
        fingerprint: SHA-256 of these numbers.
        generative: whether it answers at any noise level, in a space of actions that a client can follow.
        relative: the observation that actions are offsets from.
        sampler: the configuration of its sampler, where that is one of everybody's.
    """

    policy: str
    spec: Spec
    statistics: Mapping[str, tuple[Tensor, Tensor]]
    fingerprint: str
    generative: bool = False
    relative: str | None = None
    sampler: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, policy: Policy, *, name: str, sampler: Mapping[str, Any] | None) -> Self:
        """The greeting of a server that holds this policy."""
        normalizer = getattr(policy, "normalizer", None)
        statistics = {}
        if isinstance(normalizer, Normalizer):
            statistics = {key: normalizer.affine(key) for key in normalizer.keys}
        return cls(
            policy=name,
            spec=policy.spec,
            statistics=statistics,
            fingerprint=fingerprint(statistics),
            generative=isinstance(policy, GenerativePolicy) and affine_actions(policy),
            relative=getattr(policy, "relative", None),
            sampler=sampler,
        )

    def to_message(self) -> dict[str, Any]:
        """For the wire."""
        return {
            "version": PROTOCOL,
            "kind": "greeting",
            "policy": self.policy,
            "spec": self.spec.to_json(),
            "statistics": {
                key: {"offset": to_array(offset), "scale": to_array(scale)}
                for key, (offset, scale) in self.statistics.items()
            },
            "fingerprint": self.fingerprint,
            "generative": self.generative,
            "relative": self.relative,
            "sampler": None if self.sampler is None else json.dumps(dict(self.sampler)),
        }

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Inverse of `to_message`.

        Raises:
            RemoteError: for another protocol, or statistics that were altered.
            WireError: for a malformed greeting.
            SpecError: for a malformed spec.
        """
        check_version(message)
        if message.get("kind") != "greeting":
            raise WireError(f"the server began with {message.get('kind')!r:.40} instead of a greeting")
        statistics = {}
        for key, pair in take(message, "statistics", dict).items():
            if not isinstance(key, str) or not isinstance(pair, dict):
                raise WireError("a greeting's statistics must be maps of offset and scale by key")
            statistics[key] = (to_tensor(take_array(pair, "offset")), to_tensor(take_array(pair, "scale")))
        stated = take(message, "fingerprint", str)
        if (found := fingerprint(statistics)) != stated:
            raise RemoteError(
                f"the server's normaliser has the fingerprint {found[:12]}, it states {stated[:12]}"
            )
        sampler = take(message, "sampler", str, optional=True)
        return cls(
            policy=take(message, "policy", str),
            spec=_spec(take(message, "spec", str)),
            statistics=statistics,
            fingerprint=stated,
            generative=take(message, "generative", bool),
            relative=take(message, "relative", str, optional=True),
            sampler=None if sampler is None else _json_map(sampler),
        )


def fingerprint(statistics: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """SHA-256 of a normaliser's keys and numbers."""
    digest = hashlib.sha256()
    for key in sorted(statistics):
        for tensor in statistics[key]:
            array = to_array(tensor)
            digest.update(f"{key} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def check_same(before: Greeting, now: Greeting, *, server: str) -> None:
    """Raise unless a server that came back holds the policy it had, naming the first field and both values."""
    old, new = (
        {**g.spec.to_dict(), "generative": g.generative, "relative": g.relative} for g in (before, now)
    )
    if (difference := _difference("", old, new)) is not None:
        field, left, right = difference
        raise SpecError(f"{server} came back with another policy: {field} was {left!r} and is {right!r}")
    if before.fingerprint != now.fingerprint:
        raise SpecError(
            f"{server} came back with another normaliser: {before.fingerprint[:12]} was, {now.fingerprint[:12]} is; "
            "connect anew if that is meant"
        )


def _difference(where: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            if found := _difference(f"{where}.{key}".lstrip("."), old.get(key), new.get(key)):
                return found
        return None
    return None if old == new else (where, old, new)


def check_version(message: Mapping[str, Any]) -> None:
    """Raise unless the other side speaks this protocol."""
    if message.get("version") != PROTOCOL:
        raise RemoteError(
            f"the other side speaks protocol {message.get('version')!r:.40}, this one {PROTOCOL}; "
            "run the same version of sensorimotor on both, or use OpenPiPolicy for a server of openpi"
        )


def take(message: Mapping[Any, Any], name: str, kind: type, *, optional: bool = False) -> Any:
    """One entry of a message, of exactly this type.

    Raises:
        WireError: if it is absent or of another type.
    """
    value = message.get(name)
    if value is None and optional:
        return None
    if type(value) is not kind:
        raise WireError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise WireError(f"{name} is longer than {_LONGEST} characters")
    return value


def take_array(message: Mapping[Any, Any], name: str, *, optional: bool = False) -> Any:
    """One array of a message; None if it is optional and absent."""
    return take(message, name, np.ndarray, optional=optional)


def to_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor, wherever it lives, as an array for the wire."""
    if tensor.dtype == torch.bfloat16:
        raise WireError("bfloat16 has no place on the wire; send float32")
    return tensor.detach().cpu().numpy()


def to_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """An array from the wire as a tensor of its own memory: what comes from the wire is read-only."""
    return torch.from_numpy(array.copy())


def guide_entries(guide: ChunkGuide) -> dict[str, Any]:
    """A guide for the wire; inverse of `read_guide`."""
    counts = {name: torch.as_tensor(getattr(guide, name)).numpy(force=True) for name in ("delay", "end")}
    settings = {f.name: getattr(guide, f.name) for f in fields(Guidance)}
    return {"previous": to_array(guide.previous), **counts, **settings, "beta": float(guide.beta)}


def read_guide(entries: Mapping[Any, Any]) -> ChunkGuide:
    """A guide that came from the wire.

    Raises:
        WireError: if an entry is absent or of another type.
        ConfigError: for settings that cannot be.
    """
    previous = take_array(entries, "previous")
    counts = {name: take_array(entries, name) for name in ("delay", "end")}
    if previous.dtype.kind != "f" or any(n.dtype.kind != "i" or n.size == 0 for n in counts.values()):
        raise WireError(
            "a guide's previous chunk must hold floating-point numbers, its delay and end integers"
        )
    settings = {f.name: take(entries, f.name, float if f.name == "beta" else str) for f in fields(Guidance)}
    return ChunkGuide(
        previous=to_tensor(previous), **{name: to_tensor(n) for name, n in counts.items()}, **settings
    )


def generator_state(generator: torch.Generator) -> np.ndarray[Any, Any]:
    """All of a generator, so that the other side draws what this one would have drawn."""
    if generator.device.type != "cpu":
        raise SpecError(
            f"the generator lives on {generator.device}; remote policies need one on the CPU: torch.Generator()"
        )
    return generator.get_state().numpy()


def restore_generator(generator: torch.Generator, state: np.ndarray[Any, Any]) -> None:
    """Set a CPU generator to a state that came from the wire.

    torch checks the size and little else, and its Mersenne twister reads its 624 words at a position from the state:
    one beyond them would be read from other memory. A position p goes with 625 - p words left, or a fresh state.

    Raises:
        WireError: if the state is not one that a generator can be in.
    """
    if state.dtype != "uint8" or state.shape != tuple(generator.get_state().shape):
        raise WireError(f"state must be that of a CPU generator, got {state.dtype} of shape {state.shape}")
    left, seeded = state[8:16].view("<i4").tolist()
    position = int(state[16:24].view("<u8")[0])
    fresh = (left, position) == (1, 0)
    if seeded != 1 or not (fresh or (1 <= left <= 624 and position == 625 - left)):
        raise WireError("state is not one that a CPU generator can be in")
    try:
        generator.set_state(to_tensor(state))
    except RuntimeError as error:
        raise WireError("state is not one that a CPU generator can be in") from error


def _spec(text: str) -> Spec:
    try:
        return Spec.from_json(text)
    except SpecError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"the server's spec is not JSON of a spec: {error}") from error


def _json_map(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # also for a number of too many digits
        raise WireError(f"the server's sampler is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise WireError(f"the server's sampler must be a map, got {type(values).__name__}")
    return values
