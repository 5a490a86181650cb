"""Baselines that learn nothing: they say how much of a score the task gives away."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.errors import ConfigError
from ..data.spec import Spec
from ..policies.policy import Policy


class HoldStill(Policy):
    """Do nothing: command the position the robot is at, the first A elements of `state`.

    Actions in another unit than `state` are increments, and zero changes nothing.
    """

    def __init__(self, spec: Spec) -> None:
        """Use the task's spec; its action must be an increment, or a target for the leading elements of `state`."""
        super().__init__(spec.chunked(observation_steps=1, horizon=1, execute=1))
        state = spec.observation.get("state")
        self._increments = state is not None and state.unit != spec.action.unit
        if not self._increments and (state is None or state.size < spec.action_dim):
            raise ConfigError(f"HoldStill needs a `state` of at least {spec.action_dim} elements")

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """The current position or zeros, (B, K, 1, A)."""
        state = observation["state"]
        if self._increments:
            return torch.zeros(len(state), samples, 1, self.spec.action_dim)
        here = state[:, -1, : self.spec.action_dim].float()
        return here[:, None, None].expand(-1, samples, 1, -1).clone()


class UniformRandom(Policy):
    """A fresh uniform action inside the action bounds at every step."""

    def __init__(self, spec: Spec) -> None:
        """Use the task's spec; its action must be bounded."""
        super().__init__(spec.chunked(observation_steps=1, horizon=1, execute=1))
        if spec.action.low is None or spec.action.high is None:
            raise ConfigError("UniformRandom needs an action with bounds in the spec")
        self.register_buffer("low", torch.tensor(spec.action.low))
        self.register_buffer("high", torch.tensor(spec.action.high))

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Uniform actions, (B, K, 1, A)."""
        batch = len(next(iter(observation.values())))
        low, high = self.get_buffer("low"), self.get_buffer("high")
        u = torch.rand(batch, samples, 1, self.spec.action_dim, generator=generator)
        return low + (high - low) * u
