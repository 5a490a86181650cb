"""Executing chunks: from a policy that predicts H actions to one action per control step.

The same code runs in simulation and on a robot, for B worlds at a time. A runner keeps what a policy must not: the
history of observations and the chunk under way.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data.errors import ConfigError
from .planning import PlanningRunner
from .policy import Policy


class Runner(Protocol):
    """One action per world and control step."""

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget the past of these worlds, (n,) indices or (B,) bool; of all of them if not given."""
        ...

    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The actions (B, A) for the present observations, key -> (B, *shape) or B strings; physical units."""
        ...


@dataclass(frozen=True, kw_only=True)
class RecedingHorizonConfig:
    """Execute E actions of a chunk, then plan again, in no time."""


@dataclass(frozen=True, kw_only=True)
class TemporalEnsembleConfig:
    """Plan at every step, in no time, and average what all chunks under way say.

    Attributes:
        decay: of the weights, from the oldest chunk on; 0 averages evenly.
    """

    decay: float = 0.01

    def __post_init__(self) -> None:
        if not math.isfinite(self.decay):
            raise ConfigError(f"decay must be finite, got {self.decay}")


class RecedingHorizon(PlanningRunner):
    """Execute E actions of a chunk, from the one due now on, then plan again.

    Worlds that were reset plan at once, the others when their turn comes.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        generator: torch.Generator,
        samples: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Run `policy`.

        Args:
            policy: its spec says O, H, E and where a chunk starts.
            generator: source of the policy's randomness.
            samples: chunks drawn per plan; the first is executed, all are kept in `candidates`.
            clock: seconds, for latencies.
        """
        super().__init__(policy, generator, samples, clock)
        self._chunk = torch.zeros(0)  # (B, H, A)
        self._used = torch.zeros(0, dtype=torch.long)  # (B,) actions executed of it

    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The actions (B, A) for the present observations."""
        fresh = self._observe(observation)
        spec = self.policy.spec
        if len(self._used) != len(fresh):
            self._chunk = torch.zeros(len(fresh), spec.horizon, spec.action_dim)
            self._used = torch.zeros(len(fresh), dtype=torch.long)
        self._used[fresh] = spec.execute  # also if planning fails now: they have nothing to execute
        due = self._used >= spec.execute
        if due.any():
            self._chunk[due] = self._plan(due).to(self._chunk)
            self._used[due] = 0
        action = self._chunk[torch.arange(len(fresh)), self._used - spec.start]
        self._used += 1
        return action


class TemporalEnsemble(PlanningRunner):
    """Plan at every step and average what all chunks under way say about now, as ACT does (arXiv 2304.13705).

    The prediction made i-th, the oldest with i = 0, has weight exp(-decay i): a positive decay trusts old plans more.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        generator: torch.Generator,
        decay: float = 0.01,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Run `policy`.

        Args:
            policy: its spec says O, H and where a chunk starts; E is not used.
            generator: source of the policy's randomness.
            decay: of the weights; 0 averages evenly.
            clock: seconds, for latencies.
        """
        super().__init__(policy, generator, 1, clock)
        if not math.isfinite(decay):
            raise ConfigError(f"decay must be finite, got {decay}")
        self.decay = decay
        self.reach = policy.spec.horizon + policy.spec.start  # P, steps from now that a chunk covers
        self._plans = torch.zeros(0)  # (B, P, P, A): [b, j] is the chunk of j steps ago, from its own now on
        self._count = torch.zeros(0, dtype=torch.long)  # (B,) plans under way

    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The actions (B, A) for the present observations."""
        fresh = self._observe(observation)
        batch, spec = len(fresh), self.policy.spec
        if len(self._count) != batch:
            self._plans = torch.zeros(batch, self.reach, self.reach, spec.action_dim)
            self._count = torch.zeros(batch, dtype=torch.long)
        chunk = self._plan(torch.ones(batch, dtype=torch.bool))[:, -spec.start :]
        self._plans = torch.cat([chunk[:, None].to(self._plans), self._plans[:, :-1]], dim=1)
        self._count = torch.where(fresh, 0, self._count).add(1).clamp_max(self.reach)
        age = torch.arange(self.reach)
        opinions = self._plans[:, age, age]  # (B, P, A): what the chunk of j steps ago says about now
        order = self._count[:, None] - 1 - age  # i of the chunk of age j; negative where there is none
        # The weights' sum is divided out in the exponent, so that no decay can overflow.
        weight = torch.softmax(torch.where(order >= 0, -self.decay * order, -torch.inf), dim=1)
        return (weight[..., None] * opinions).sum(dim=1)
