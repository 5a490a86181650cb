"""Flow matching over action chunks, as in pi0 (arXiv 2410.24164): a network that knows the way from noise to action.

Training: `x_t = t eps + (1 - t) a`, `L = |v_theta(x_t, t, o) - (eps - a)|^2`; here t is the path's s.
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
from .path import mix, noise_from_velocity
from .policy import GenerativePolicy
from .sampling import FlowEuler, SamplerConfig
from .trunk import TrunkConfig
from .unet import UNetConfig

TimeDistribution = Literal["uniform", "beta"]
_TIMES = ("uniform", "beta")

STEPS = 1000.0  # trunks count steps as diffusion does; flow time is given to them in thousandths


@dataclass(frozen=True, kw_only=True)
class FlowConfig(NetworkConfig):
    """A flow-matching policy.

    Attributes:
        trunk: the network.
        time: where on the path to train; `beta` is pi0's 0.999 Beta(1.5, 1) + 0.001, denser near the noise.
        sampler: how chunks are sampled.
    """

    trunk: TrunkConfig = field(default_factory=UNetConfig)
    time: TimeDistribution = "beta"
    sampler: SamplerConfig = field(default_factory=FlowEuler)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time not in _TIMES:
            raise ConfigError(f"unknown time {self.time!r}; {nearest(self.time, _TIMES)}")


def draw_times(distribution: TimeDistribution, count: int, generator: torch.Generator) -> Tensor:
    """(count,) training positions in (0, 1]; both distributions keep 0.001 away from 0."""
    u = torch.rand(count, generator=generator, device=generator.device)
    if distribution == "beta":
        u = u ** (1 / 1.5)  # the inverse of Beta(1.5, 1)'s distribution function
    return 0.999 * u + 0.001


class FlowPolicy(NetworkPolicy, GenerativePolicy):
    """A network trained on the velocity of the path."""

    config: FlowConfig

    def __init__(self, config: FlowConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.sampler = config.sampler

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat - a_hat at x_s."""
        return self.trunk(x, STEPS * s, condition.values).to(x)

    def predict_noise(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat at x_s."""
        return noise_from_velocity(x, s, self.predict_velocity(x, s, condition))

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity at one random position per chunk."""
        action, condition = self.training_pair(batch, generator)
        s = draw_times(self.config.time, len(action), generator).to(action)
        noise = draw(action.shape, generator, action)
        out = self.trunk(mix(action, noise, s), STEPS * s, condition.values)
        return self.reduce(
            F.mse_loss(out.float(), noise - action, reduction="none"), batch.mask.to(action.device)
        )
