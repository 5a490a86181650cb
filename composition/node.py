"""What a saved composition says, node by node: the classes that its file is made of."""

from dataclasses import dataclass

from ..policies.consistency import ConsistencyJump
from ..policies.descent import Descent
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
        address: ws://host:port.
        fingerprint: of its scales of actions; None for one that answers with actions only.
    """

    address: str
    fingerprint: str | None = None


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
    sampler: Sampler
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
