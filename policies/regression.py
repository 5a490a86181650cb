"""The baseline without generation: a network that predicts one chunk. It averages over modes, and shows the cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.errors import ConfigError
from ..data.schema import nearest
from ..data.windows import Batch
from .network import Features, NetworkConfig, NetworkPolicy
from .policy import start_with

Loss = Literal["mse", "smooth_l1"]
_LOSSES = ("mse", "smooth_l1")


@dataclass(frozen=True, kw_only=True)
class RegressorConfig(NetworkConfig):
    """A regression policy; its network is given a chunk of zeros at step 0.

    Attributes:
        loss: squared error, or smooth L1, which forgives outliers.
    """

    loss: Loss = "mse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in _LOSSES:
            raise ConfigError(f"unknown loss {self.loss!r}; {nearest(self.loss, _LOSSES)}")

    @classmethod
    def like(cls, config: NetworkConfig) -> Self:
        """The baseline of another policy: its windows, network and features, without generation."""
        # Without noise, further draws would only repeat the first.
        return cls(**config.shared(trunk=config.predicting(), draws=1))


class RegressionPolicy(NetworkPolicy):
    """One chunk per observation; further samples repeat it."""

    config: RegressorConfig

    def _predict(self, condition: Features) -> Tensor:
        rows = len(condition.values)
        x = condition.values.new_zeros(rows, self.spec.horizon, self.spec.action_dim)
        return self.trunk(x, x.new_zeros(()), condition.values).float()

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """The predicted chunk, `samples` times; see `Policy.sample`."""
        self.check_prefix(prefix, self.check_observation(observation))
        with torch.no_grad():
            condition = self.encode(observation)
            chunk = self.unnormalize_action(self._predict(condition), condition)
        return start_with(chunk[:, None].repeat(1, samples, 1, 1), prefix)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean error of the predicted chunk."""
        target, condition = self.training_pair(batch, generator)
        error = F.mse_loss if self.config.loss == "mse" else F.smooth_l1_loss
        return self.reduce(
            error(self._predict(condition), target, reduction="none"), batch.mask.to(target.device)
        )
