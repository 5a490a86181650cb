"""Where members meet: one spec for all of them, and the part of a chunk that each answers for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.errors import ConfigError, SpecError
from ..data.spec import Field, Spec, check_field
from ..policies.policy import GenerativePolicy, Policy
from .space import Window, check_columns


@dataclass(frozen=True)
class Part:
    """A policy as it enters a composition.

    Attributes:
        policy: the member.
        name: how it is called in tables and errors; made up from its class if None.
        columns: for a member with fewer numbers per action than the first: which of the first one's it commands.
    """

    policy: Policy
    name: str | None = None
    columns: tuple[int, ...] | None = None


def as_parts(members: Mapping[str, Policy] | Sequence[Policy | Part]) -> list[Part]:
    """Members with unique names.

    Raises:
        ConfigError: for no members, one that cannot be composed, or a name given twice.
    """
    if isinstance(members, Mapping):
        parts = [Part(policy, name) for name, policy in members.items()]
    else:
        parts = [member if isinstance(member, Part) else Part(member) for member in members]
    if not parts:
        raise ConfigError("a composition needs members; give one policy or more")
    names: list[str] = []
    for part in parts:
        if not isinstance(part.policy, GenerativePolicy):
            raise ConfigError(
                f"{type(part.policy).__name__} cannot be composed: it draws actions, but has no answer at a noise level; "
                "compose diffusion, flow, energy or vision-language-action policies, and use rerank for others"
            )
        names.append(part.name or _unused(_short(part.policy), names))
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"two members are called {min(twice)!r}; give each a name of its own")
    return [replace(part, name=name) for part, name in zip(parts, names, strict=True)]


def _short(policy: Policy) -> str:
    return type(policy).__name__.removesuffix("Policy").lower()


def _unused(name: str, names: list[str]) -> str:
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(names) + 3))) if n not in names)


def meet(parts: Sequence[Part], *, execute: int | None = None) -> tuple[Spec, list[Window]]:
    """The spec of a composition and its members' windows.

    A chunk reaches from the earliest first action to the latest last one; the action's numbers are the first member's.

    Raises:
        SpecError: naming the first field in which members disagree, the members and both values.
    """
    specs = [part.policy.spec for part in parts]
    names = [part.name or "" for part in parts]
    first = specs[0]
    observation: dict[str, tuple[str, Field]] = {}
    for name, spec in zip(names, specs, strict=True):
        if abs(spec.control_hz / first.control_hz - 1) > 1e-6:
            raise SpecError(
                f"control_hz differs: {names[0]} {first.control_hz}, {name} {spec.control_hz}; a chunk of both would "
                "play one of them at the wrong speed"
            )
        for key, field in spec.observation.items():
            other, known = observation.setdefault(key, (name, field))
            check_field(f"observation {key!r}", known, field, other, name)
    start = min(spec.start for spec in specs)
    windows = [_window(part, first, start, names[0]) for part in parts]
    horizon = max(window.first + window.length for window in windows)
    _check_covered(windows, names, horizon, first.action_dim)
    execute = execute or min(spec.execute for spec in specs)
    return (
        Spec(
            observation={key: field for key, (_, field) in observation.items()},
            action=first.action,
            control_hz=first.control_hz,
            observation_steps=max(spec.observation_steps for spec in specs),
            horizon=horizon,
            execute=execute,
            start=start,
        ),
        windows,
    )


def reading_more(spec: Spec, other: Spec, name: str, other_name: str) -> Spec:
    """A spec that also reads what another one does, for a policy and whoever watches it.

    Raises:
        SpecError: naming the first field in which they disagree, and both values.
    """
    check_field("action", spec.action, other.action, name, other_name)
    if abs(other.control_hz / spec.control_hz - 1) > 1e-6:
        raise SpecError(f"control_hz differs: {name} {spec.control_hz}, {other_name} {other.control_hz}")
    for key in spec.observation.keys() & other.observation.keys():
        check_field(f"observation {key!r}", spec.observation[key], other.observation[key], name, other_name)
    return replace(
        spec,
        observation={**spec.observation, **other.observation},
        observation_steps=max(spec.observation_steps, other.observation_steps),
    )


def seen_by(spec: Spec, observation: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and the latest steps of an observation that one of several readers reads."""
    return {
        key: observation[key] if field.is_text else observation[key][:, -spec.observation_steps :]
        for key, field in spec.observation.items()
    }


def _window(part: Part, first: Spec, start: int, reference: str) -> Window:
    spec, width = part.policy.spec, first.action_dim
    name = part.name or ""
    if part.columns is None:
        if spec.action_dim != width:
            raise SpecError(
                f"actions of {reference} have {width} numbers, those of {name} {spec.action_dim}; say which of "
                f"{reference}'s numbers they are, as in Part(policy, columns=(0, 1)), or put the widest member first"
            )
        check_field("action", first.action, spec.action, reference, name)
        columns = tuple(range(width))
    else:
        check_columns(part.columns, spec.action_dim, width, name)
        columns = part.columns
    return Window(spec.start - start, spec.horizon, columns)


def _check_covered(windows: Sequence[Window], names: Sequence[str], horizon: int, width: int) -> None:
    covered = torch.zeros(horizon, width, dtype=torch.bool)
    for window in windows:
        covered[window.rows, list(window.columns)] = True
    if not covered.all():
        row, column = (int(n) for n in (~covered).nonzero()[0])
        raise SpecError(
            f"number {column} of action {row} is predicted by none of {list(names)}: the members of full width have "
            "shorter chunks; put a member of full width and the longest chunk among them"
        )


def coverage(windows: Sequence[Window], widths: Sequence[int], horizon: int, width: int) -> Tensor:
    """(M, H, W) bool, which numbers each member answers for.

    Args:
        windows: of the members.
        widths: of the members, with the padding they carry noise for; padding is met by those who pad, and W is that of
            the widest.
        horizon: H.
        width: A of the composition.
    """
    widest = max(
        width, *(n for window, n in zip(windows, widths, strict=True) if window.whole(horizon, width)), 0
    )
    cover = torch.zeros(len(windows), horizon, widest, dtype=torch.bool)
    for mine, window, own in zip(cover, windows, widths, strict=True):
        mine[window.rows, list(window.columns)] = True
        if window.whole(horizon, width):
            mine[:, :own] = True
    return cover
