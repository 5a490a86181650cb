"""The configuration of `train`, `eval` and `demos`: what is learned from what, and how it is judged."""

from dataclasses import dataclass, field
from typing import Literal

from ..composition.ito import ReverseSDE
from ..data.errors import ConfigError
from ..data.formats import Format
from ..policies.consistency import ConsistencyJump
from ..policies.descent import Descent
from ..policies.execution import RecedingHorizonConfig, TemporalEnsembleConfig
from ..policies.factory import PolicyConfig
from ..policies.sampling import SamplerConfig
from ..policies.scheduling import HardOverwrite, NaiveAsync, RealTimeChunking, Synchronous, TemporalMerge
from ..rl.factory import CriticConfig
from ..sim.demonstrator import DemonstratorConfig
from ..sim.tasks import TaskConfig
from ..training.config import TrainingConfig

Baseline = Literal["hold_still", "random", "nearest", "regressor"]
Execution = (
    RecedingHorizonConfig
    | TemporalEnsembleConfig
    | Synchronous
    | NaiveAsync
    | HardOverwrite
    | RealTimeChunking
    | TemporalMerge
)

BUNDLED = "bundled"  # a data.path: the demonstrations that come with the package


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from.

    Attributes:
        path: file or folder of a known format, or `bundled`.
        format: its format; found out from the content if null.
        control_hz: control steps per second, for formats that do not record them.
        mirror: add the mirrored copy of every training episode, for tasks with a mirror symmetry.
        held_out: share of the episodes kept out of training, for the held-out loss.
        episodes: use only the first so many episodes; all if null.
        lazy_images: leave camera frames in their file until they are needed, rather than in memory; if null, those of
            HDF5 files, of which single frames are read fast.
        record: where there is no such file yet, record so many demonstrations of the expert into it; null for never.
    """

    path: str
    format: Format | None = None
    control_hz: float | None = None
    mirror: bool = False
    held_out: float = 0.05
    episodes: int | None = None
    lazy_images: bool | None = None
    record: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.held_out must lie in [0, 1), got {self.held_out}")
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"data.episodes must be at least 1, or null for all, got {self.episodes}")
        if self.record is not None and self.record < 1:
            raise ConfigError(f"data.record must be at least 1, or null for never, got {self.record}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a policy is judged.

    Attributes:
        episodes: number of starts; 0 evaluates nothing.
        seed: the starts are seed, seed + 1, ...; 100000 and up to report, 200000 and up to choose.
        video: how many of the first episodes are recorded.
        baselines: evaluated on the same starts, for comparison.
        execution: how a chunk of actions is executed.
        delay: control steps from an observation to the arrival of its chunk, for the executions that know of it.
        worlds: how many episodes run together.
    """

    episodes: int = 50
    seed: int = 100_000
    video: int = 3
    baselines: tuple[Baseline, ...] | None = ()
    execution: Execution = field(default_factory=RecedingHorizonConfig)
    delay: int = 0
    worlds: int = 50

    def __post_init__(self) -> None:
        for name, least in (("episodes", 0), ("seed", 0), ("video", 0), ("delay", 0), ("worlds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.delay and isinstance(self.execution, RecedingHorizonConfig | TemporalEnsembleConfig):
            raise ConfigError(
                f"delay {self.delay} needs an execution that knows of it: synchronous, naive_async, hard_overwrite, "
                "real_time_chunking or temporal_merge"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run.

    Attributes:
        name: of the experiment, used for the run folder.
        run: the run folder; `runs/<name>-<time>` if null.
        resume: go on where the run was interrupted.
        seed: of everything random.
        data: what is learned from.
        policy: what is trained, unless there is a critic.
        critic: trained in place of a policy, on the same data; null trains the policy.
        training: how.
        task: where it is evaluated; null for data without a simulation.
        evaluation: how it is evaluated after training.
    """

    name: str
    run: str | None = None
    resume: bool = False
    seed: int = 0
    data: DataConfig
    policy: PolicyConfig
    critic: CriticConfig | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    task: TaskConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(EvaluationConfig):
    """Evaluate a trained policy.

    Attributes:
        checkpoint: folder of a run or of a checkpoint.
        task: where; the task stored in the run if null.
        sampler: how actions are drawn; as trained if null.
        out: folder for evaluation.json and videos; the run folder if null.
        baselines: those the run was compared with if null.
    """

    checkpoint: str
    task: TaskConfig | None = None
    sampler: SamplerConfig | ReverseSDE | Descent | ConsistencyJump | None = None
    out: str | None = None
    baselines: tuple[Baseline, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1, got {self.episodes}")


@dataclass(frozen=True, kw_only=True)
class DemosConfig:
    """Record demonstrations.

    Attributes:
        out: the robomimic HDF5 file to write.
        task: the world.
        expert: who demonstrates; the task's own expert unless another is named.
        episodes: number of successful episodes to keep.
        seed: the first start.
        overwrite: replace an existing file.
    """

    out: str
    task: TaskConfig
    expert: DemonstratorConfig
    episodes: int = 100
    seed: int = 0
    overwrite: bool = False
