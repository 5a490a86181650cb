"""What all runners share: the history of observations, and planning that is timed."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..data.errors import ConfigError, SpecError
from .policy import Policy

_LATENCIES_KEPT = 1000


class History:
    """The latest O observations of B worlds; of text, the latest alone."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.window: dict[str, Any] = {}  # key -> (B, O, *shape), or B strings

    def add(self, observation: Mapping[str, Any], fresh: Tensor) -> None:
        """Shift every window by one step; a world that is fresh (B,) starts with its first one repeated."""
        for key, now in observation.items():
            if not isinstance(now, Tensor):
                self.window[key] = list(now)
                continue
            repeated = now.unsqueeze(1).expand(-1, self.steps, *now.shape[1:])
            if key not in self.window:
                self.window[key] = repeated.clone()
                continue
            shifted = torch.cat([self.window[key][:, 1:], now.unsqueeze(1)], dim=1)
            if fresh.any():
                shifted[fresh] = repeated[fresh]
            self.window[key] = shifted


class PlanningRunner:
    """History and timed planning, common to all runners.

    Attributes:
        latencies: seconds of the latest planning calls, newest last.
        candidates: (b, K, H, A) all samples of the latest planning call; the first of each is executed.
    """

    def __init__(
        self, policy: Policy, generator: torch.Generator, samples: int, clock: Callable[[], float]
    ) -> None:
        if samples < 1:
            raise ConfigError(f"samples must be at least 1, got {samples}")
        self.policy, self.generator, self.samples, self.clock = policy, generator, samples, clock
        self.latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self.candidates: Tensor | None = None
        self._history = History(policy.spec.observation_steps)
        self._fresh: Tensor | None = (
            None  # (B,) bool, worlds without a past; None: all, and B is not known yet
        )

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget the past of these worlds, or of all of them."""
        if worlds is None:
            self._fresh = None
            self._history = History(self.policy.spec.observation_steps)
        elif self._fresh is not None:
            self._fresh[worlds] = True

    def _observe(self, observation: Mapping[str, Any]) -> Tensor:
        """Take in the present observations; return which worlds (B,) have only just begun."""
        keys = self.policy.spec.observation
        missing = [key for key in keys if key not in observation]
        if missing:
            raise SpecError(f"observation {missing[0]!r} is missing; the policy needs {list(keys)}")
        batch = len(observation[next(iter(keys))])
        if self._fresh is not None and len(self._fresh) != batch:
            raise SpecError(
                f"the observation has {batch} worlds, the steps before had {len(self._fresh)}; call reset() in between"
            )
        fresh = torch.ones(batch, dtype=torch.bool) if self._fresh is None else self._fresh
        self._fresh = torch.zeros(batch, dtype=torch.bool)
        self._history.add({key: observation[key] for key in keys}, fresh)
        return fresh

    def _window(self, worlds: Tensor) -> Mapping[str, Any]:
        """The latest observations (b, O, *shape) of the worlds selected by (B,) bool; nothing writes to them later."""
        window = self._history.window
        return (
            dict(window)
            if bool(worlds.all())
            else {key: _rows(value, worlds) for key, value in window.items()}
        )

    def _draw(self, observation: Mapping[str, Any], **options: Any) -> Tensor:
        """New chunks (b, H, A) for these observations; options go to the policy's `sample`."""
        began = self.clock()
        chunks = self.policy.sample(
            observation, samples=self.samples, generator=self.generator, **options
        ).cpu()
        self.latencies.append(self.clock() - began)
        self.candidates = chunks
        return chunks[:, 0]

    def _plan(self, worlds: Tensor) -> Tensor:
        """New chunks (b, H, A) for the worlds selected by (B,) bool."""
        return self._draw(self._window(worlds))


def _rows(value: Tensor | list[str], worlds: Tensor) -> Tensor | list[str]:
    """Those of the worlds selected by (B,) bool."""
    if isinstance(value, Tensor):
        return value[worlds]
    return [text for text, wanted in zip(value, worlds.tolist(), strict=True) if wanted]
