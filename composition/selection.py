"""What a choice of weights is worth, told on episodes that had no part in it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from ..data.intervals import Interval, mean_interval, paired_interval, wilson
from .search import Choice, parents
from .seeds import Seeds
from .trials import Trials, Weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SelectionReport:
    """Chosen weights against the best parent.

    Attributes:
        choice: how they were found.
        curve: (weights, interval) of every candidate on the episodes it was judged by; not what to expect of it.
        optimism: how much higher than the truth the best of the curve looks, expected by resampling its episodes; of the
            candidates that a race did not drop.
        luck: how much higher the best of these would look if all were as good as the best parent; NaN for scores.
        parent: the parent that looked best in the selection.
        chosen_value: of the chosen weights, on reporting episodes.
        parent_value: of that parent, on the same ones.
        gain: mean difference of the two, episode by episode.
        spent: episodes of the selection and of the report.
    """

    choice: Choice
    curve: tuple[tuple[Weights, Interval], ...]
    optimism: float
    luck: float
    parent: Weights
    chosen_value: Interval
    parent_value: Interval
    gain: Interval
    spent: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def report_selection(
    trials: Trials,
    choice: Choice,
    seeds: Seeds,
    *,
    draws: int = 2000,
    generator: np.random.Generator | None = None,
) -> SelectionReport:
    """Play the chosen weights and the best parent on reporting seeds, and say what the selection was worth.

    Args:
        trials: plays what has not been played yet.
        choice: of a search on `seeds.choosing()`.
        seeds: whose other half reports.
        draws: resamples behind `optimism` and `luck`.
        generator: of the resampling; a fresh one seeded with 0 if not given.
    """
    generator = np.random.default_rng(0) if generator is None else generator
    members = len(choice.weights)
    judged = {
        w: trials.values(w, seeds.choosing()[:n])
        for w, n in zip(choice.candidates, choice.counts, strict=True)
    }
    lone = parents(members)
    if missing := [w for w in lone if w not in judged]:
        raise ConfigError(
            f"the search did not try {missing}, one member alone, so that the best parent is not known; search with "
            "grid_search, race or bayesian_search, which try all parents"
        )
    # A parent that a race dropped earlier was behind with confidence, however lucky its few episodes.
    parent = max(lone, key=lambda w: (len(judged[w]), judged[w].mean(), -lone.index(w)))
    last = [values for values in judged.values() if len(values) == max(choice.counts)]
    chosen = trials.values(choice.weights, seeds.telling())
    alone = trials.values(parent, seeds.telling())
    return SelectionReport(
        choice=choice,
        curve=tuple((w, interval_of(values)) for w, values in judged.items()),
        optimism=optimism(last, draws, generator),
        luck=luck(float(judged[parent].mean()), last, draws, generator),
        parent=parent,
        chosen_value=interval_of(chosen),
        parent_value=interval_of(alone),
        gain=Interval(0.0, 0.0, 0.0, len(chosen))
        if choice.weights == parent
        else paired_interval(chosen, alone),
        spent=(choice.spent, 2 * seeds.reporting if choice.weights != parent else seeds.reporting),
    )


def interval_of(values: Array) -> Interval:
    """Wilson's for successes, Student's for scores."""
    if _successes(values):
        return wilson(int(values.sum()), len(values))
    return (
        mean_interval(values, within=(0.0, 1.0))
        if 0 <= values.min() <= values.max() <= 1
        else mean_interval(values)
    )


def _successes(values: Array) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def optimism(values: Sequence[Array], draws: int, generator: np.random.Generator) -> float:
    """Expected excess of the best candidate's mean over its true one.

    Episodes are split in two at random; the winner of one half is judged by the other, which had no part in choosing it.
    Noise is sqrt(2) times as large in a half as in the whole, so the difference is divided by that: exact where candidates
    are equally good, and more than the truth where they are far apart.

    Args:
        values: (episodes,) of every candidate, the same episodes of all.
        draws: splits.
        generator: of the splits.
    """
    table = np.stack(values)  # (candidates, episodes)
    shared = table.shape[1]
    if shared < 2:
        return float("nan")
    half = shared // 2
    excess = []
    for _ in range(draws):
        order = generator.permutation(shared)
        one, other = table[:, order[:half]].mean(axis=1), table[:, order[half : 2 * half]].mean(axis=1)
        winner = int(one.argmax())
        excess.append(one[winner] - other[winner])
    return float(np.mean(excess)) / math.sqrt(2)


def luck(rate: float, values: Sequence[Array], draws: int, generator: np.random.Generator) -> float:
    """Expected excess of the best of so many candidates if each succeeded independently at this rate; NaN for scores."""
    if not all(_successes(v) for v in values):
        return float("nan")
    rate = float(np.clip(rate, 0.0, 1.0))
    counts = np.array([len(v) for v in values])
    means = generator.binomial(counts, rate, size=(draws, len(counts))) / counts
    return float(means.max(axis=1).mean() - rate)
