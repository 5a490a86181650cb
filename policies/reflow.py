"""Rectified flow's second round (arXiv 2209.03003): a flow trained on where a trained policy takes each noise.

Pairs (eps, a) of noise and what the teacher makes of it replace pairs of noise and a demonstrated action. Their straight
lines hardly cross, so the ways of the new flow are nearly straight, and one Euler step nearly arrives.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.errors import ConfigError
from ..data.windows import Batch
from .flow import STEPS, FlowConfig, FlowPolicy, TimeDistribution, draw_times
from .network import draw
from .path import mix
from .sampling import DDIM, DPMSolver, FlowEuler, FlowHeun, SamplerConfig, VelocitySampler
from .teacher import Student

Solver = DDIM | DPMSolver | FlowEuler | FlowHeun


@dataclass(frozen=True, kw_only=True)
class ReflowConfig(FlowConfig):
    """A flow with straight ways.

    Attributes:
        teacher: folder of the run or checkpoint of a diffusion or flow policy, needed in training only. The
            student takes over its normaliser, and must share its spec.
        solver: takes noise to the teacher's action, the same for the same noise. Pairs are made afresh in every update,
            which costs as many calls of the teacher as the solver makes; an update of a plain flow costs about three.
        time: where on the path to train.
        sampler: how chunks are sampled.
    """

    teacher: str | None = None
    solver: Solver = field(default_factory=FlowEuler)
    time: TimeDistribution = "uniform"
    sampler: SamplerConfig = field(default_factory=lambda: FlowEuler(steps=1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.solver, VelocitySampler) and self.solver.temperature != 1.0:
            raise ConfigError(
                f"solver.temperature must be 1, got {self.solver.temperature}: pairs must hold the noise that the "
                "student will start from; set sampler.temperature instead"
            )


class ReflowPolicy(Student, FlowPolicy):
    """A network trained on the velocity between noise and what the teacher makes of it."""

    config: ReflowConfig

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity at one random position per chunk."""
        recorded, condition, told = self.lesson(batch, generator)
        noise = draw(recorded.shape, generator, recorded)
        action = self.taught(told, noise)
        s = draw_times(self.config.time, len(action), generator).to(action)
        out = self.trunk(mix(action, noise, s), STEPS * s, condition.values)
        return self.reduce(
            F.mse_loss(out.float(), noise - action, reduction="none"), batch.mask.to(action.device)
        )

    def taught(self, told: Any, noise: Tensor) -> Tensor:
        """What the teacher makes of noise (B, H, A) under its own condition, normalised."""
        rows, horizon, width = noise.shape
        return self.teacher.draw_normalized(told, (rows, horizon, width), self.config.solver, noise=noise)
