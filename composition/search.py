"""Which weights? A grid as in GPC (arXiv 2510.01068), and a race that spends its episodes where they decide.

Every choice is made on selection seeds, the same ones for all candidates, so that they are compared episode by episode.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from .seeds import Seeds
from .trials import Trials, Weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What a search found.

    Attributes:
        weights: the best by its mean value; the first of equally good ones.
        candidates: all that were tried, parents among them.
        means: of each, over the episodes it played.
        counts: episodes of each.
        spent: episodes played for this search, those of an earlier, interrupted call included.
    """

    weights: Weights
    candidates: tuple[Weights, ...]
    means: tuple[float, ...]
    counts: tuple[int, ...]
    spent: int


def simplex_grid(members: int, parts: int = 10) -> list[Weights]:
    """All weights of so many members that are multiples of 1 / parts; 11 for two members, the parents at the ends."""
    if members < 1 or parts < 1:
        raise ConfigError(f"a grid needs at least 1 member and 1 part, got {members} and {parts}")
    bars = itertools.combinations(range(parts + members - 1), members - 1)
    counts = (np.diff([-1, *bar, parts + members - 1]) - 1 for bar in bars)
    return sorted(tuple((np.asarray(c) / parts).tolist()) for c in counts)


def parents(members: int) -> list[Weights]:
    """The weights that are one member alone."""
    return [tuple(float(i == j) for j in range(members)) for i in range(members)]


def with_parents(candidates: Sequence[Weights]) -> list[Weights]:
    """Candidates, each once, and the parents that are not among them.

    Raises:
        ConfigError: for none, or for weights of different numbers of members.
    """
    lengths = {len(weights) for weights in candidates}
    if len(lengths) != 1:
        raise ConfigError(
            f"a search needs candidates of one number of members, got {sorted(lengths) or 'none'}; see simplex_grid"
        )
    return list(dict.fromkeys([*candidates, *parents(lengths.pop())]))


def grid_search(trials: Trials, candidates: Sequence[Weights], seeds: Seeds) -> Choice:
    """Play all candidates, and the parents where these are not among them, on all selection seeds."""
    candidates = with_parents(candidates)
    means = [float(trials.values(weights, seeds.choosing()).mean()) for weights in candidates]
    return _choice(candidates, means, [seeds.selection] * len(candidates))


@dataclass(frozen=True, kw_only=True)
class Race:
    """How candidates are dropped.

    Attributes:
        first: episodes of the first round; every round doubles the episodes played so far.
        confidence: chance that the best candidate is never dropped.
    """

    first: int = 20
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.first < 2:
            raise ConfigError(f"first must be at least 2 episodes, got {self.first}")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie in (0, 1), got {self.confidence}")


def race(trials: Trials, candidates: Sequence[Weights], seeds: Seeds, config: Race | None = None) -> Choice:
    """Drop candidates that are worse than the leader with confidence, and play the others on.

    A candidate goes when the mean of its differences from the leader, episode by episode, lies below 0 by more than the
    empirical Bernstein bound (Maurer and Pontil, arXiv 0907.3740), at a level shared by all comparisons and rounds.
    Values must lie in 0..1. Parents that are not among the candidates take part too.

    Raises:
        ConfigError: for no candidates, fewer than two selection episodes, or values outside 0..1.
    """
    config = config or Race()
    candidates = with_parents(candidates)
    if seeds.selection < 2:
        raise ConfigError(f"a race needs at least 2 selection episodes, got {seeds.selection}")
    rounds = max(1, math.ceil(math.log2(max(1.0, seeds.selection / config.first)))) + 1
    level = (1 - config.confidence) / (rounds * max(1, len(candidates) - 1))
    alive, played = list(range(len(candidates))), {i: np.zeros(0) for i in range(len(candidates))}
    count = min(config.first, seeds.selection)
    while True:
        for i in alive:
            played[i] = trials.values(candidates[i], seeds.choosing()[:count])
            if played[i].min() < 0 or played[i].max() > 1:
                raise ConfigError(
                    f"a race needs values in 0..1, got {played[i].min():.4g} to {played[i].max():.4g}; use success or a "
                    "score of that range, or grid_search"
                )
        leader = max(alive, key=lambda i: (played[i].mean(), -i))
        alive = [i for i in alive if not _worse(played[i] - played[leader], level)]
        if count == seeds.selection or len(alive) == 1:
            break
        count = min(2 * count, seeds.selection)
    means = [float(values.mean()) for values in played.values()]
    best = max(alive, key=lambda i: (means[i], -i))
    found = _choice(candidates, means, [len(values) for values in played.values()])
    return Choice(candidates[best], found.candidates, found.means, found.counts, found.spent)


def _worse(differences: Array, level: float) -> bool:
    """Whether the mean of differences in -1..1 is below 0 with this level of doubt."""
    n, log = len(differences), math.log(2 / level)
    bound = math.sqrt(2 * differences.var(ddof=1) * log / n) + 7 * 2 * log / (3 * (n - 1))
    return differences.mean() + bound < 0


def _choice(candidates: Sequence[Weights], means: Sequence[float], counts: Sequence[int]) -> Choice:
    best = max(range(len(candidates)), key=lambda i: (means[i], -i))
    return Choice(candidates[best], tuple(candidates), tuple(means), tuple(counts), sum(counts))
