"""Values as a person typed them, made to fit the types of the configuration they are meant for.

OmegaConf's structured nodes know neither `Literal` nor a union of dataclasses, and both are how this project says
"one of these". So the tree that Hydra composes is plain, and this module holds it against the dataclasses.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.errors import ConfigError, SensorimotorError
from ..data.schema import from_mapping, nearest

REQUIRED = "???"  # how OmegaConf writes a value that has to be given


def plain(config: Any) -> dict[str, Any]:
    """A dataclass, or a dataclass type with defaults, as the nested mapping Hydra composes.

    A `kind` is written only where the type leaves a choice; a required field becomes OmegaConf's `???`.
    """
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = _default(field) if isinstance(config, type) else getattr(config, field.name)
        values[field.name] = plain_value(value, choice=len(_classes(hints[field.name])) > 1)
    return values


def plain_value(value: Any, *, choice: bool = False) -> Any:
    """One value of such a mapping; `choice` writes a dataclass with its `kind`."""
    if dataclasses.is_dataclass(value):
        return ({"kind": type(value).__name__} if choice else {}) | plain(value)
    if isinstance(value, tuple | list):
        return [plain_value(item, choice=choice) for item in value]
    return value


def build(choices: Any, values: Mapping[str, Any], *, where: str = "") -> Any:
    """The dataclass that `values` describes, every value checked against its type.

    Args:
        choices: one dataclass, or a union of them, told apart by `kind`.
        values: as composed by Hydra.
        where: dotted path used in messages.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    return from_mapping(choices, _mapping(choices, values, where), where=where or "config")


def option_name(choice: type) -> str:
    """How a class is written on the command line: `FlowEuler` is `flow_euler`, `UNetConfig` is `unet`."""
    return kind_name(choice.__name__)


def kind_name(kind: str) -> str:
    """The same, from the name of the class, as a stored `kind` gives it."""
    name = kind.removesuffix("Config")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z])", "_", name).lower()


def alternatives(choices: Any, values: Mapping[str, Any], path: Sequence[str]) -> dict[str, type]:
    """The classes that may stand at a dotted path, by the names they have on the command line; often none.

    Args:
        choices: the root dataclass, or a union.
        values: the composed tree, whose `kind`s say which way the path goes.
        path: the parts of the dotted path.
    """
    if not path:
        return {option_name(option): option for option in _classes(choices)}
    found = {option.__name__: option for option in _classes(choices)}
    target = found.get(values.get("kind", next(iter(found), "")))
    hints = typing.get_type_hints(target) if target else {}
    inside = values.get(path[0])
    if path[0] not in hints:
        return {}
    return alternatives(hints[path[0]], inside if isinstance(inside, Mapping) else {}, path[1:])


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def _options(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _classes(hint: Any) -> list[type]:
    return [o for o in _options(hint) if isinstance(o, type) and dataclasses.is_dataclass(o)]


def _mapping(choices: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    classes = {option.__name__: option for option in _classes(choices)}
    kind = values.get("kind") or (next(iter(classes)) if len(classes) == 1 else None)
    if kind not in classes:
        raise ConfigError(f"{where}.kind: unknown kind {kind!r}; {nearest(str(kind), classes)}")
    hints = typing.get_type_hints(classes[kind])
    prefix = f"{where}." if where else ""
    for field in dataclasses.fields(classes[kind]):
        if field.name not in values and _default(field) == REQUIRED:
            raise ConfigError(f"{prefix}{field.name} is required; write {prefix}{field.name}=...")
    checked = {
        key: _value(hints[key], value, prefix + key) if key in hints else value
        for key, value in values.items()
        if key != "kind"
    }
    described = {"kind": kind} | checked
    if where:  # what is wrong inside is said with the place where it stands
        try:
            from_mapping(classes[kind], described, where=where)
        except SensorimotorError as error:
            told = str(error)
            raise ConfigError(told if told.startswith(where) else f"{where}: {told}") from error
    return described


def _value(hint: Any, value: Any, where: str) -> Any:
    options = _options(hint)
    if value == REQUIRED:
        raise ConfigError(f"{where} is required; write {where}=...")
    if value is None and (types.NoneType in options or Any in options):
        return None
    if isinstance(value, str) and (named := {option_name(c): c for c in _classes(hint)}.get(value)):
        value = {"kind": named.__name__}  # an alternative by its name alone, with its defaults
    if isinstance(value, Mapping) and _classes(hint):
        return _mapping(hint, value, where)
    for option in options:
        fitted = _fit(option, value, where)
        if fitted is not _MISFIT:
            return fitted
    raise ConfigError(f"{where} must be {_describe(options)}, got {value!r}")


_MISFIT = object()


def _fit(option: Any, value: Any, where: str) -> Any:
    """`value` as an `option`, or `_MISFIT`."""
    origin = typing.get_origin(option)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match option:
        case _ if option is Any or origin is dict or origin is Mapping:
            return value
        case _ if origin is typing.Literal:
            return value if value in typing.get_args(option) else _MISFIT
        case _ if origin is tuple and isinstance(value, list | str):
            inner = typing.get_args(option)
            repeated = inner[-1] is Ellipsis
            value = [value] if isinstance(value, str) else value  # one name stands for a list of one
            if not repeated and len(inner) != len(value):
                return _MISFIT
            return [
                _value(inner[0] if repeated else inner[i], item, f"{where}[{i}]")
                for i, item in enumerate(value)
            ]
        case _ if option is bool:
            return value if isinstance(value, bool) else _MISFIT
        case _ if option is int and number:
            return int(value) if float(value).is_integer() else _MISFIT  # 1e5 is how people write steps
        case _ if option is float and number:
            return float(value)
        case _ if option is str and (isinstance(value, str) or number):
            return str(value)  # a run may be called 3
    return _MISFIT


def _describe(options: tuple[Any, ...]) -> str:
    return " or ".join(_name(option) for option in options)


def _name(option: Any) -> str:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list [...] of {_describe(_options(arguments[0]))}s"
        return f"a list of {len(arguments)} values [{', '.join(_name(a) for a in arguments)}]"
    if isinstance(option, type) and dataclasses.is_dataclass(option):
        return f"the keys of {option.__name__}"
    plain_names = {types.NoneType: "null", bool: "true or false", int: "a whole number", float: "a number"}
    return plain_names.get(option, "text" if option is str else str(option))
