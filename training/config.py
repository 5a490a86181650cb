"""What a training run is, as frozen values: the whole of it can be written to a file and read back."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..data.errors import ConfigError

Schedule = Literal["cosine", "constant"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu"]


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, in the power form of Diffusion Policy.

    Attributes:
        power: the decay at update n is 1 - n^-power, so the average forgets the early weights by itself.
        max_decay: cap on the decay.
    """

    power: float = 0.75
    max_decay: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise ConfigError(f"power must be positive and finite, got {self.power!r}; 0.75 suits most runs")
        if not 0 <= self.max_decay < 1:
            raise ConfigError(f"max_decay must lie in [0, 1), got {self.max_decay!r}; 0.9999 suits most runs")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained; the same for every method.

    Attributes:
        steps: number of optimiser updates.
        batch_size: windows per update, over all processes and accumulated microbatches together.
        seed: decides the order of the data, the noise and the dropout.
        learning_rate: peak of the schedule.
        betas: AdamW's decay rates of the first and second moment.
        epsilon: AdamW's term that keeps the division finite.
        weight_decay: decoupled weight decay.
        decay_matrices_only: leave biases, gains and other vectors undecayed.
        warmup_steps: updates of linear warm-up.
        schedule: what follows the warm-up.
        minimum_ratio: learning rate at the end of the cosine, as a share of the peak.
        clip_norm: largest global gradient norm; None never clips.
        accumulate: microbatches per update and process.
        precision: fp32, or bf16 autocast with fp32 weights.
        ema: moving average of the weights; None keeps none.
        log_every: updates between rows of metrics.
        evaluate_every: updates between held-out losses.
        evaluate_batches: at most this many times `batch_size` held-out windows are used, always the same ones.
        checkpoint_every: updates between checkpoints.
        keep: newest numbered checkpoints kept besides `last` and `best`.
        threads: CPU threads of torch during training; None leaves them as they are.
        minutes: wall-clock budget of one call, after which training ends as if asked to stop.
        device: the accelerator if there is one, or the CPU.
        tensorboard: also write TensorBoard event files.
    """

    steps: int = 20_000
    batch_size: int = 256
    seed: int = 0
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.95, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 1e-6
    decay_matrices_only: bool = False
    warmup_steps: int = 500
    schedule: Schedule = "cosine"
    minimum_ratio: float = 0.0
    clip_norm: float | None = 1.0
    accumulate: int = 1
    precision: Precision = "fp32"
    ema: EmaConfig | None = field(default_factory=EmaConfig)
    log_every: int = 50
    evaluate_every: int = 1000
    evaluate_batches: int = 8
    checkpoint_every: int = 1000
    keep: int = 0
    threads: int | None = None
    minutes: float | None = None
    device: Device = "auto"
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "evaluate_every", "evaluate_batches"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("checkpoint_every", self.checkpoint_every >= 1, "at least 1")
        for name in ("seed", "warmup_steps", "keep"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "epsilon"):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive and finite")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "non-negative and finite")
        self._require("betas", all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        self._require("minimum_ratio", 0 <= self.minimum_ratio <= 1, "in [0, 1]")
        for name in ("clip_norm", "threads", "minutes"):
            value = getattr(self, name)
            self._require(name, value is None or 0 < value < math.inf, "positive and finite, or null")
        for name, choices in (("schedule", Schedule), ("precision", Precision), ("device", Device)):
            allowed = get_args(choices)
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"batch_size must be a multiple of accumulate, got {self.batch_size} and {self.accumulate}; "
                "every microbatch has the same size"
            )

    def _require(self, name: str, good: bool, allowed: str) -> None:
        if not good:
            raise ConfigError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
