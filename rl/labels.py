"""Rewards of recorded episodes, where they end for good, and what came after: Monte-Carlo returns.

`R_t = r_t + gamma m_t R_{t+1}`, with m_t = 0 where nothing comes after step t. An episode whose last step has m = 1 was
only cut off: it is taken to go on for ever as it ended, with its last reward, so that its last return is r / (1 - gamma).

Reference: V-GPS (arXiv 2410.13816) and its released code, which labels demonstrations by their end alone.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.episodes import Episodes
from ..data.errors import ConfigError, DataError
from ..data.schema import nearest

LabelSource = Literal["success", "rewards"]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """Where rewards come from.

    Attributes:
        source: `success` gives -1 per step until an episode succeeds, then 0; episodes that failed go on for ever at -1,
            and those of data that says nothing about success count as demonstrations, which succeeded. `rewards` are
            the data's own, and an episode ends where the data says `terminated`.
        ending: steps at the end of a successful episode that have reward 0 and nothing after them.
        discount: gamma, what a reward is worth one step later.
    """

    source: LabelSource = "success"
    ending: int = 3
    discount: float = 0.98

    def __post_init__(self) -> None:
        if self.source not in (sources := get_args(LabelSource)):
            raise ConfigError(f"unknown labels {self.source!r}; {nearest(self.source, sources)}")
        if self.ending < 1:
            raise ConfigError(f"ending must be at least 1 step, got {self.ending}")
        if not 0 <= self.discount < 1:
            raise ConfigError(f"discount must lie in [0, 1), got {self.discount}; 0.98 is usual")

    @property
    def worst(self) -> float:
        """The return of an episode that never succeeds, -1 / (1 - gamma)."""
        return -1 / (1 - self.discount)


@dataclass(frozen=True)
class Labels:
    """What every step of a dataset was worth.

    Attributes:
        reward: (N,) r.
        mask: (N,) m, 1.0, or 0.0 where nothing comes after.
        returns: (N,) R.
    """

    reward: Numbers
    mask: Numbers
    returns: Numbers


def label(episodes: Episodes, config: LabelsConfig) -> Labels:
    """Rewards, masks and returns of every step.

    Raises:
        DataError: if the data holds no rewards and is asked for its own, naming what is missing.
    """
    reward, mask = _by_success(episodes, config) if config.source == "success" else _own(episodes)
    return Labels(reward, mask, monte_carlo(reward, mask, episodes.ends, config.discount))


def monte_carlo(reward: Numbers, mask: Numbers, ends: NDArray[np.int64], discount: float) -> Numbers:
    """Returns (N,) of episodes that end before `ends` (M,), all episodes at once and backwards in time."""
    lengths = np.diff(ends, prepend=0)
    returns = np.empty(len(reward))
    after = reward[ends - 1] / (1 - discount)  # what comes after the last step, if anything does
    for back in range(int(lengths.max())):
        alive = lengths > back
        step = ends[alive] - 1 - back
        after[alive] = returns[step] = reward[step] + discount * mask[step] * after[alive]
    return returns


def _by_success(episodes: Episodes, config: LabelsConfig) -> tuple[Numbers, Numbers]:
    lengths = episodes.lengths
    success = np.ones(len(episodes), dtype=bool) if episodes.success is None else episodes.success
    left = np.repeat(episodes.ends, lengths) - np.arange(episodes.steps)
    mask = np.where(np.repeat(success, lengths) & (left <= config.ending), 0.0, 1.0)
    return -mask, mask


def _own(episodes: Episodes) -> tuple[Numbers, Numbers]:
    if episodes.reward is None:
        raise DataError(
            "labels.source=rewards needs the data's own rewards, and these episodes have none; use labels.source=success, "
            "which takes the end of every successful episode for its goal"
        )
    reward = np.asarray(episodes.reward, dtype=np.float64)
    if not np.isfinite(reward).all():
        raise DataError(f"{int((~np.isfinite(reward)).sum())} rewards are not finite; run check_finite()")
    over = np.zeros(len(reward), dtype=bool) if episodes.terminated is None else episodes.terminated
    return reward, np.where(over, 0.0, 1.0)
