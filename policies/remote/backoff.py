"""How long to wait before the next attempt to reach a server."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BackoffConfig:
    """Exponential waiting with jitter, so that many clients do not return in step.

    Attributes:
        first_s: before the second attempt.
        factor: by which every further wait grows.
        longest_s: no wait is longer.
        jitter: share of a wait that is random: a wait w becomes one from [(1 - jitter) w, w].
    """

    first_s: float = 0.05
    factor: float = 2.0
    longest_s: float = 5.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.longest_s < float("inf"):
            raise ConfigError(
                f"waits must satisfy 0 < first_s <= longest_s, got {self.first_s} and {self.longest_s}"
            )
        if not 1 <= self.factor < float("inf"):
            raise ConfigError(f"factor must be at least 1 and finite, got {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"jitter must lie in [0, 1], got {self.jitter}")


class Backoff:
    """Counts failures and says when the next attempt is due."""

    def __init__(
        self, config: BackoffConfig, *, generator: np.random.Generator, clock: Callable[[], float]
    ) -> None:
        """Begin without failures.

        Args:
            config: how waits grow.
            generator: of the jitter.
            clock: seconds.
        """
        self.config, self.generator, self.clock = config, generator, clock
        self.failures = 0
        self._due = -float("inf")

    def failed(self) -> None:
        """An attempt failed now."""
        growth = self.config.factor ** min(self.failures, 100)  # 100: beyond any wait, and no overflow
        wait = min(self.config.first_s * growth, self.config.longest_s)
        self.failures += 1
        self._due = self.clock() + wait * (1 - self.config.jitter * self.generator.random())

    def succeeded(self) -> None:
        """An attempt succeeded: the next failure waits shortly again."""
        self.failures, self._due = 0, -float("inf")

    def wait_s(self) -> float:
        """Seconds until the next attempt; 0 if it is due."""
        return max(0.0, self._due - self.clock())
