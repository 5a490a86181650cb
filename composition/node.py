"""What a saved composition says, node by node: the classes that its file is made of."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from ..data.errors import ConfigError
from ..policies.consistency import ConsistencyJump
from ..policies.descent import Descent
from ..policies.remote.connection import ConnectionConfig
from ..policies.sampling import SamplerConfig
from .composed import Total
from .fault import Fallback
from .ito import ReverseSDE
from .reranked import Recourse
from .superposed import Operator
from .weights import Constant, PerDimension, Schedule

Sampler = SamplerConfig | ReverseSDE | Descent | ConsistencyJump


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint.

    Attributes:
        path: relative to the file, or absolute.
        checksum: SHA-256 of its manifest.
        ema: whether averaged weights are used, where there are some.
        sampler: how it draws, where that is not as trained.
    """

    path: str
    checksum: str
    ema: bool = True
    sampler: Sampler | None = None


@dataclass(frozen=True, kw_only=True)
class Served:
    """A policy of another process.

    Attributes:
        connection: how it is reached; no token is kept.
        fingerprint: of its spec and of its scales.
        sampler: how it draws, where that is not as served.
    """

    connection: ConnectionConfig
    fingerprint: str
    sampler: Sampler | None = None


@dataclass(frozen=True, kw_only=True)
class Named:
    """A member: see `Part`."""

    name: str
    policy: "Node"
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """See `compose`."""

    members: tuple[Named, ...]
    weights: Constant | Schedule | PerDimension
    total: Total
    sampler: Sampler
    fallback: Fallback
    execute: int


@dataclass(frozen=True, kw_only=True)
class Superposed:
    """See `superpose`."""

    members: tuple[Named, ...]
    operator: Operator
    temperature: float
    prior: tuple[float, ...]
    sampler: ReverseSDE
    fallback: Fallback


@dataclass(frozen=True, kw_only=True)
class Reranked:
    """See `rerank`."""

    policy: "Node"
    critic: Trained
    samples: int
    temperature: float
    fallback: Recourse


@dataclass(frozen=True, kw_only=True)
class Guided:
    """See `guide_by_critic`."""

    member: Named
    critic: Trained
    strength: float
    sampler: Sampler


Node = Trained | Served | Mixed | Superposed | Reranked | Guided


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The whole file."""

    version: int
    policy: Node


def check_types(node: Any, where: str) -> None:
    """Raise unless every value in a dataclass and in those inside it is of its type.

    Raises:
        ConfigError: naming the first that is not, and what is needed.
    """
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value, place = getattr(node, field.name), f"{where}.{field.name}"
        if not _fits(value, hints[field.name]):
            raise ConfigError(f"{place} is {value!r}; needed is {_written(hints[field.name])}")
        for i, part in enumerate(value if isinstance(value, tuple) else (value,)):
            if dataclasses.is_dataclass(part):
                check_types(part, f"{place}[{i}]" if isinstance(value, tuple) else place)


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inside)
    if origin is Literal:
        return value in inside
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inside[0]) for item in value)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _written(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_written(option) for option in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
