"""Episodes of compositions under given weights, for the searches in `composition/`."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..composition.composed import compose
from ..composition.meeting import Part
from ..composition.trials import Array, Play, Weights
from ..data.errors import ConfigError
from ..data.schema import nearest
from ..policies.policy import Policy
from ..policies.sampling import OwnSampler, SamplerConfig
from .evaluation import evaluate
from .task import Task

VALUES = ("success", "score")


def play(
    members: Mapping[str, Policy] | Sequence[Policy | Part],
    task: Task,
    *,
    sampler: SamplerConfig | OwnSampler | None = None,
    value: str = "success",
) -> Play:
    """What plays episodes of `compose(members, weights)` for `Trials`.

    Every call with the same starts sees the same worlds and draws the same noise, so that weights are compared episode by
    episode; other starts draw other noise.

    Args:
        members: as `compose` takes them.
        task: worlds stepped together; as many episodes as it has run at a time.
        sampler: as `compose` takes it.
        value: `success`, 0 or 1, or `score`, the best reward of the episode.
    """
    if value not in VALUES:
        raise ConfigError(f"unknown value {value!r}; {nearest(value, VALUES)}")

    def roll_out(weights: Weights, seeds: Sequence[int]) -> Array:
        policy = compose(members, weights, sampler=sampler)
        played = [
            evaluate(policy, task, episodes=len(run), first_seed=run.start, seed=run.start)
            for run in consecutive(seeds)
        ]
        return np.concatenate(
            [(e.success if value == "success" else e.reward).astype(np.float64) for e in played]
        )

    return roll_out


def consecutive(seeds: Sequence[int]) -> Iterator[range]:
    """The seeds as runs of neighbours, in their order."""
    for _, group in itertools.groupby(enumerate(seeds), key=lambda pair: pair[1] - pair[0]):
        run = [seed for _, seed in group]
        yield range(run[0], run[-1] + 1)
