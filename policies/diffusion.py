"""Diffusion Policy (arXiv 2303.04137): a network that knows the noise in an action chunk, at every noise level.

Training: `a_k = sqrt(abar_k) a + sqrt(1 - abar_k) eps`, `L = |eps - eps_theta(a_k, k, o)|^2`.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer
from ..data.schema import nearest
from ..data.spec import Spec
from ..data.windows import Batch
from .network import Features, NetworkConfig, NetworkPolicy, draw
from .path import (
    BETA_SCHEDULES,
    BetaSchedule,
    action_from_noise,
    grid,
    index_on_grid,
    levels,
    noise_from_action,
    spread,
    to_variance_preserving,
)
from .policy import GenerativePolicy
from .sampling import DDIM, SamplerConfig, ScheduleSampler
from .trunk import TrunkConfig
from .unet import UNetConfig

Prediction = Literal["epsilon", "sample", "v_prediction"]
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_BOUNDED = ("min_max", "quantile")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(NetworkConfig):
    """A diffusion policy; defaults are the published ones, except for ten DDIM steps instead of a hundred DDPM steps.

    Attributes:
        trunk: the network.
        train_steps: noise levels in training.
        beta_schedule: shape of the noise schedule.
        prediction: what the network outputs: the noise, the action, or v = alpha eps - sigma a.
        clip: bound on predicted actions, in normalised numbers, where a velocity is derived from noise; samplers
            carry their own. None for no bound.
        sampler: how chunks are sampled.
    """

    trunk: TrunkConfig = field(default_factory=UNetConfig)
    train_steps: int = 100
    beta_schedule: BetaSchedule = "squaredcos_cap_v2"
    prediction: Prediction = "epsilon"
    clip: float | None = 1.0
    sampler: SamplerConfig = field(default_factory=DDIM)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_steps < 2:
            raise ConfigError(f"train_steps must be at least 2, got {self.train_steps}")
        if self.beta_schedule not in BETA_SCHEDULES:
            raise ConfigError(
                f"unknown beta_schedule {self.beta_schedule!r}; {nearest(self.beta_schedule, BETA_SCHEDULES)}"
            )
        if self.prediction not in _PREDICTIONS:
            raise ConfigError(
                f"unknown prediction {self.prediction!r}; {nearest(self.prediction, _PREDICTIONS)}"
            )
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be positive or none, got {self.clip}")
        bounds = [self.clip]
        if isinstance(self.sampler, ScheduleSampler):
            bounds.append(self.sampler.clip)
        if self.normalizer.action not in _BOUNDED and any(b is not None and b <= 1 for b in bounds):
            raise ConfigError(
                f"clip 1.0 cuts actions off when they are scaled by {self.normalizer.action!r}; "
                "set clip and sampler.clip to none (or a few standard deviations), or normalizer.action to min_max"
            )


class DiffusionPolicy(NetworkPolicy, GenerativePolicy):
    """A network trained at the noise levels of a DDPM, asked anywhere on the path.

    It is asked at the (fractional) training step whose ratio of noise to signal is that of s, with x rescaled to
    unit variance. Velocities come from `a_hat = (x - s eps) / (1 - s)`; near s = 1, where that says nothing, the
    action is estimated as at the last but one training step.
    """

    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.sampler = config.sampler
        alpha, sigma = levels(config.beta_schedule, config.train_steps)
        positions = grid(config.beta_schedule, config.train_steps)
        for name, values in (("alpha", alpha), ("sigma", sigma)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("positions", positions.clone(), persistent=False)
        self._largest_s = float(positions[-2])

    def predict_noise(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat at x_s."""
        return self._noise_and_action(x, s, condition)[0]

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat - a_hat at x_s."""
        noise, action = self._noise_and_action(x, s, condition)
        if action is None:
            action = action_from_noise(x, s.clamp_max(self._largest_s), noise)
            if self.config.clip is not None:
                action = action.clamp(-self.config.clip, self.config.clip)
        return noise - action

    def _noise_and_action(self, x: Tensor, s: Tensor, condition: Features) -> tuple[Tensor, Tensor | None]:
        """eps_hat, and a_hat where the network knows it without dividing by 1 - s."""
        step = index_on_grid(s, self.get_buffer("positions"))
        x_vp, alpha, sigma = to_variance_preserving(x, s)
        out = self.trunk(x_vp, step, condition.values).to(x)
        match self.config.prediction:
            case "epsilon":
                return out, None
            case "sample":
                return noise_from_action(x, s, out), out
            case "v_prediction":
                return alpha * out + sigma * x_vp, alpha * x_vp - sigma * out

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the prediction at one random noise level per chunk."""
        action, condition = self.training_pair(batch, generator)
        k = torch.randint(
            self.config.train_steps, (len(action),), generator=generator, device=generator.device
        )
        k = k.to(action.device)
        noise = draw(action.shape, generator, action)
        alpha, sigma = (
            spread(self.get_buffer("alpha")[k], action),
            spread(self.get_buffer("sigma")[k], action),
        )
        out = self.trunk(alpha * action + sigma * noise, k.float(), condition.values)
        match self.config.prediction:
            case "epsilon":
                target = noise
            case "sample":
                target = action
            case "v_prediction":
                target = alpha * noise - sigma * action
        return self.reduce(F.mse_loss(out.float(), target, reduction="none"), batch.mask.to(action.device))
