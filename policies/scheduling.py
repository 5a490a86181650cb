"""When the next chunk is asked for, and what becomes of the one under way: configurations of asynchronous execution."""

import math
from collections import deque
from dataclasses import dataclass, field

from ..data.errors import ConfigError
from ..data.spec import Spec
from .guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class Replanning:
    """When the next chunk is asked for; one request per world is under way at a time.

    Attributes:
        every: actions executed since a chunk's observation, arrivals included, after which the next one is asked
            for; the spec's E if neither this nor `threshold` is given.
        threshold: ask when at most this share of a chunk is left, as LeRobot's asynchronous client does (its g).
    """

    every: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.threshold is not None:
            raise ConfigError(
                f"give every or threshold, not both; got every {self.every} and threshold {self.threshold}"
            )
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every must be at least 1, got {self.every}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ConfigError(f"threshold must lie in [0, 1), got {self.threshold}")

    def after(self, spec: Spec) -> int:
        """Actions executed of a chunk when the next one is asked for.

        Raises:
            ConfigError: if a chunk does not hold so many.
        """
        reach = spec.horizon + spec.start
        if self.threshold is not None:
            return max(1, reach - math.floor(self.threshold * spec.horizon + 1e-9))
        after = spec.execute if self.every is None else self.every
        if after > reach:
            raise ConfigError(
                f"every must be at most {reach}, the actions a chunk holds from now on; got {after}"
            )
        return after


@dataclass(frozen=True, kw_only=True)
class Synchronous(Replanning):
    """Stop and wait: the last action is held until the next chunk is there."""


@dataclass(frozen=True, kw_only=True)
class NaiveAsync(Replanning):
    """Go on with the chunk under way, and switch to the next one when it arrives."""


@dataclass(frozen=True, kw_only=True)
class HardOverwrite(Replanning):
    """As `NaiveAsync`, but every chunk starts with the actions that will be executed until it arrives."""


@dataclass(frozen=True, kw_only=True)
class RealTimeChunking(Replanning):
    """As `NaiveAsync`, but every chunk is guided to continue the one under way (arXiv 2506.07339).

    Attributes:
        guidance: how strongly.
    """

    guidance: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True, kw_only=True)
class TemporalMerge(Replanning):
    """As `NaiveAsync`, but where both chunks say something, they are averaged.

    Attributes:
        old: weight of the chunk under way. LeRobot's client calls 0.3 `weighted_average`, 0.5 `average`, 0.7
            `conservative` and 0 `latest_only`.
    """

    old: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.old <= 1:
            raise ConfigError(f"old must lie in [0, 1], got {self.old}")


Mode = Synchronous | NaiveAsync | HardOverwrite | RealTimeChunking | TemporalMerge


def check_delay(mode: Mode, spec: Spec, delay: int) -> None:
    """Raise unless real-time chunking has room: d <= s <= H - d, with H counted from now on.

    Below d, the next chunk would be asked for before the last one has arrived; above H - d, the frozen actions would
    reach beyond the end of the chunk under way.
    """
    if not isinstance(mode, RealTimeChunking):
        return
    after, reach = mode.after(spec), spec.horizon + spec.start
    if not delay <= after <= reach - delay:
        room = (
            f"choose every in {delay}..{reach - delay}"
            if 2 * delay <= reach
            else "plan faster, or predict longer chunks"
        )
        raise ConfigError(
            f"a delay of {delay} steps does not fit chunks of {reach} actions replanned after {after}: "
            f"needed is {delay} <= {after} <= {reach - delay}; {room}"
        )


def delay_steps(seconds: float, control_hz: float) -> int:
    """Whole control steps that a latency takes, rounded up; 0.2 s at 25 Hz are 5 whatever the last bit says."""
    return max(0, math.ceil(seconds * control_hz - 1e-9))


class DelayForecast:
    """The delay to plan for: the longest of the latest ones (arXiv 2506.07339, algorithm 1)."""

    def __init__(self, initial: int, *, keep: int = 10, warmup: int = 1) -> None:
        """Start with a guess.

        Args:
            initial: steps; counts as measured until newer ones have pushed it out.
            keep: measurements that count.
            warmup: first measurements that are ignored: what runs for the first time is slow.
        """
        if initial < 0 or keep < 1 or warmup < 0:
            raise ConfigError(
                f"initial and warmup must be at least 0 and keep at least 1, got {initial}, {warmup}, {keep}"
            )
        self._kept = deque([initial], maxlen=keep)
        self._ignore = warmup

    def add(self, steps: int) -> None:
        """Take in a measured delay."""
        if self._ignore:
            self._ignore -= 1
        else:
            self._kept.append(steps)

    @property
    def steps(self) -> int:
        """The delay to plan for."""
        return max(self._kept)
