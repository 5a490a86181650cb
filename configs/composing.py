"""The configuration of `compose` and `rerank`: trained policies in, one evaluated policy out."""

from dataclasses import dataclass
from typing import Literal

from ..composition.fault import Fallback
from ..composition.ito import ReverseSDE
from ..data.errors import ConfigError
from ..policies.sampling import SamplerConfig
from ..sim.tasks import TaskConfig
from .train import DataConfig

Operator = Literal["mix", "or", "and"]
Search = Literal["race", "grid", "bayesian"]
Value = Literal["success", "score"]


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """Make many policies one.

    Attributes:
        members: folders of runs, checkpoints or compositions, or ws://host:port.
        names: of the members in tables; those of their folders if null.
        weights: one per member, which sum to 1; searched on the task if null. For `or`: the share of each.
        operator: `mix` weighs answers (GPC); `or` does what any member would, `and` what all agree on.
        search: `race` drops candidates that fall behind, `grid` plays all, `bayesian` proposes (needs optuna).
        parts: steps of 1 / parts between the candidates of `race` and `grid`.
        candidates: of `bayesian`.
        value: what the search compares.
        selection: episodes per candidate, starts 200000 and up.
        episodes: reported, starts 100000 and up, which no search sees.
        sampler: how chunks are drawn; the members' own if null.
        fallback: `others` goes on without a member that fails, `none` stops.
        data: demonstrations; members are probed on them, and the search starts from the weights that denoise them best.
        task: where; the task stored in the first member's run if null.
        out: the folder written; `runs/composition-<time>` if null.
        resume: go on with an interrupted search in `out`.
        video: how many of the first reported episodes are recorded.
        worlds: how many episodes run together.
    """

    members: tuple[str, ...]
    names: tuple[str, ...] | None = None
    weights: tuple[float, ...] | None = None
    operator: Operator = "mix"
    search: Search = "race"
    parts: int = 10
    candidates: int = 20
    value: Value = "success"
    selection: int = 200
    episodes: int = 200
    sampler: SamplerConfig | ReverseSDE | None = None
    fallback: Fallback = "none"
    data: DataConfig | None = None
    task: TaskConfig | None = None
    out: str | None = None
    resume: bool = False
    video: int = 3
    worlds: int = 50

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError("members names no policy; write members=[runs/a,runs/b]")
        if self.names is not None and len(self.names) != len(self.members):
            raise ConfigError(f"{len(self.names)} names for {len(self.members)} members; give one for each")
        for name, least in (("parts", 1), ("candidates", 1), ("selection", 1), ("episodes", 1), ("video", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.worlds < 1:
            raise ConfigError(f"worlds must be at least 1, got {self.worlds}")


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """Let a critic pick among a policy's candidates.

    Attributes:
        policy: folder of a run, checkpoint or composition, or ws://host:port.
        critic: folder of a critic's run or checkpoint.
        samples: K, candidates per decision.
        temperature: beta; 0 takes the best candidate, larger values choose more evenly.
        sampler: how candidates are drawn; the policy's own if null.
        task: where; the task stored in the policy's run if null.
        episodes: reported, starts seed, seed + 1, ...
        seed: 100000 and up to report, 200000 and up to choose.
        out: the folder written; `runs/reranked-<time>` if null.
        video: how many of the first episodes are recorded.
        worlds: how many episodes run together.
    """

    policy: str
    critic: str
    samples: int = 10
    temperature: float = 0.0
    sampler: SamplerConfig | ReverseSDE | None = None
    task: TaskConfig | None = None
    episodes: int = 200
    seed: int = 100_000
    out: str | None = None
    video: int = 3
    worlds: int = 50

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("episodes", 1), ("seed", 0), ("video", 0), ("worlds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be at least 0 and finite, got {self.temperature}")
