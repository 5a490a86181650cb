"""Weights chosen on selection seeds and reported on others, with score and success of both; for the benchmarks beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fitting import kept
from numpy.typing import NDArray
from push_t_human import summary

from sensorimotor.composition.bayesian import Bayesian, bayesian_search
from sensorimotor.composition.composed import compose
from sensorimotor.composition.prior import denoising_weights
from sensorimotor.composition.search import grid_search, simplex_grid
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.selection import SelectionReport, report_selection
from sensorimotor.composition.trials import Trials, Weights
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.intervals import Interval, mean_interval, wilson
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.sampling import SamplerConfig
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.task import Task

Array = NDArray[np.float64]
CANDIDATES = 24  # of a Bayesian search, for more than two members


@dataclass(frozen=True)
class Study:
    """One set of members under one sampler.

    Attributes:
        members: by name.
        sampler: the same for parents and compositions.
        task: worlds.
        seeds: which choose and which report.
        folder: keeps every evaluation, so that nothing is played twice.
    """

    members: Mapping[str, Policy]
    sampler: SamplerConfig
    task: Task
    seeds: Seeds
    folder: Path

    def played(self, weights: Weights, seeds: range) -> dict[str, Any]:
        """Episodes under these weights, `solved` and `scores` in the order of their seeds."""
        used = {name: w for name, w in zip(self.members, weights, strict=True) if w}
        label = " ".join(f"{name} {w:g}" for name, w in used.items())

        def play() -> dict[str, Any]:
            policy = compose(list(self.members.values()), weights, sampler=self.sampler)
            return summary(evaluate(policy, self.task, episodes=len(seeds), first_seed=seeds.start))

        return kept(self.folder / f"{label}, {seeds.start} to {seeds.stop - 1}.json", play)

    def trials(self) -> Trials:
        """Successes, for the searches."""

        def play(weights: Weights, seeds: Sequence[int]) -> Array:
            return solved(self.played(weights, range(seeds[0], seeds[-1] + 1)))

        return Trials(play)

    def prior(self, demonstrations: Episodes) -> Weights:
        """Weights that denoise demonstrations best."""
        return denoising_weights(compose(list(self.members.values()), sampler=self.sampler), demonstrations)

    def report(self, prior: Weights, *, parts: int = 10) -> SelectionReport:
        """Choose, on a grid for two members, and report."""
        trials, count = self.trials(), len(self.members)
        if count == 2:
            choice = grid_search(trials, simplex_grid(2, parts), self.seeds)
        else:
            even = (1 / count,) * count
            choice = bayesian_search(
                trials, count, self.seeds, Bayesian(candidates=CANDIDATES), starts=[even, prior]
            )
        return report_selection(trials, choice, self.seeds)


def row(study: Study, report: SelectionReport, prior: Weights, sampler: str) -> list[str]:
    """Members, what was chosen, parents and composition on reporting seeds."""
    return [
        " + ".join(study.members),
        sampler,
        *(_alone(study, i) for i in (0, 1)),
        written(prior),
        written(report.choice.weights),
        report.chosen_value.percent(),
        points(report.gain),
        f"{100 * report.optimism:.1f}",
        f"{agreement(study):+.2f}",
        scores(study.played(report.choice.weights, study.seeds.telling())),
    ]


COLUMNS = [
    "members",
    "sampler",
    "first alone",
    "second alone",
    "weights that denoise best",
    "weights chosen",
    "success [95 %]",
    "gain over the best parent, points [95 %]",
    "optimism of the search, points",
    "correlation of the parents' successes",
    "score [95 %]",
]


def data_of(study: Study, report: SelectionReport, prior: Weights) -> dict[str, Any]:
    """Everything about one study, for the record."""
    count = len(study.members)
    lone = [tuple(float(i == j) for j in range(count)) for i in range(count)]
    return {
        **report.to_dict(),
        "prior": prior,
        "reported": {
            " ".join(f"{w:g}" for w in weights): study.played(weights, study.seeds.telling())
            for weights in [*lone, report.choice.weights]
        },
    }


AGREEMENT = (
    "Correlation of the parents' successes, start by start: near 0 a failure is chance within an episode and no start that "
    "members cannot do, so that they have little to teach each other; what a mixture can gain is less chance."
)


def agreement(study: Study) -> float:
    """Mean correlation of success between parents on reporting seeds."""
    alone = [solved(_played_alone(study, i)) for i in range(len(study.members))]
    table = np.asarray(np.corrcoef(alone))
    return float(table[np.triu_indices(len(alone), 1)].mean())


def verdict(report: SelectionReport) -> str:
    """What came of it, in words."""
    if report.choice.weights == report.parent:
        return "the search chose a parent"
    if report.gain.low > 0:
        return "beats the better parent"
    if report.gain.high < 0:
        return "is worse than the better parent"
    return "cannot be told from the better parent"


def written(weights: Weights) -> str:
    return " / ".join(f"{w:.2f}" for w in weights)


def scores(found: Mapping[str, Any]) -> str:
    values = np.array([float(score) for score in found["scores"].split()])
    return mean_interval(values, within=(0.0, 1.0)).decimal()


def success(found: Mapping[str, Any]) -> str:
    return wilson(found["solved"].count("1"), len(found["solved"])).percent()


def solved(found: Mapping[str, Any]) -> Array:
    """1 or 0 for every episode."""
    return np.array([char == "1" for char in found["solved"]], dtype=float)


def points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _alone(study: Study, member: int) -> str:
    return success(_played_alone(study, member))


def _played_alone(study: Study, member: int) -> dict[str, Any]:
    weights = tuple(float(i == member) for i in range(len(study.members)))
    return study.played(weights, study.seeds.telling())
