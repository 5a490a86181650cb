"""Frozen dataclasses to plain mappings and back, strictly.

A union of dataclasses is written with a `kind` key, the class name; nothing is imported or called by name from a
file, so a configuration that came from outside can only ever choose among the classes named in the code.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ConfigError


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A hint that names the closest allowed word, and all of them."""
    options = sorted(allowed)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(options)}"


def to_mapping(config: Any) -> dict[str, Any]:
    """A dataclass as nested plain values, each dataclass with its `kind`."""
    values: dict[str, Any] = {"kind": type(config).__name__}
    for field in dataclasses.fields(config):
        values[field.name] = _plain(getattr(config, field.name))
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def from_mapping(choices: Any, values: Mapping[str, Any], *, where: str = "config") -> Any:
    """Build the dataclass that `values` describes.

    Args:
        choices: one dataclass, or a union of them; a union is decided by the key `kind`.
        values: as written by `to_mapping`; missing keys take their defaults.
        where: path used in messages.

    Raises:
        ConfigError: for an unknown kind or key, naming the nearest valid one.
    """
    candidates: tuple[Any, ...] = typing.get_args(choices) or (choices,)
    classes = {c.__name__: c for c in candidates if isinstance(c, type) and dataclasses.is_dataclass(c)}
    kind = values.get("kind", next(iter(classes)) if len(classes) == 1 else None)
    if not isinstance(kind, str) or kind not in classes:
        raise ConfigError(f"{where}: unknown kind {kind!r}; {nearest(str(kind), classes)}")
    target = classes[kind]
    hints = typing.get_type_hints(target)
    names = {f.name for f in dataclasses.fields(target) if f.init}
    arguments = {}
    for key, value in values.items():
        if key == "kind":
            continue
        if key not in names:
            raise ConfigError(f"{where}: unknown key {key!r} in {kind}; {nearest(key, names)}")
        arguments[key] = _typed(hints[key], value, f"{where}.{key}")
    try:
        return target(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if isinstance(value, Mapping) and any(dataclasses.is_dataclass(o) for o in options):
        union = typing.Union[tuple(o for o in options if dataclasses.is_dataclass(o))]  # noqa: UP007
        return from_mapping(union, value, where=where)
    if isinstance(value, list):
        return _sequence(options, value, where)
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        return float(value)
    return value


def _sequence(options: tuple[Any, ...], value: list[Any], where: str) -> Any:
    hint = next((o for o in options if typing.get_origin(o) is tuple), None)
    inner = typing.get_args(hint)
    if not inner:
        return tuple(value)
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise ConfigError(f"{where}: needs {len(kinds)} values, got {value}")
    return tuple(_typed(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
