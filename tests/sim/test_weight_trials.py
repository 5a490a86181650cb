"""Episodes for weight searches: the right policy on the right starts."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from sensorimotor.composition.composed import compose
from sensorimotor.composition.trials import Trials
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.formats import load_dataset
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.sim.demos import DEMONSTRATIONS
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds
from sensorimotor.sim.weight_trials import consecutive, play

SAMPLER = FlowEuler(steps=2)


@pytest.fixture(scope="module")
def members() -> dict:
    """Two untrained policies: they move, and score differently."""
    episodes = load_dataset(DEMONSTRATIONS)
    config = FlowConfig(trunk=MLPConfig(width=8, depth=1), relative="state")
    return {name: make_policy(config, episodes, seed=seed) for name, seed in (("a", 1), ("b", 2))}


def test_seeds_become_runs_of_neighbours() -> None:
    assert list(consecutive([5, 6, 7, 20, 30, 31])) == [range(5, 8), range(20, 21), range(30, 32)]
    assert list(consecutive([3])) == [range(3, 4)]


def test_values_are_those_of_an_evaluation(members: dict) -> None:
    with closing(PushTWorlds(PushTConfig(max_steps=20), worlds=3)) as task:
        trials = Trials(play(members, task, sampler=SAMPLER, value="score"))
        for weights in ((0.3, 0.7), (1.0, 0.0)):
            own = evaluate(
                compose(members, weights, sampler=SAMPLER), task, episodes=3, first_seed=200_000, seed=200_000
            )
            np.testing.assert_array_equal(trials.values(weights, range(200_000, 200_003)), own.reward)


def test_other_starts_draw_other_noise(members: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def noted(*args: Any, **options: Any) -> Any:
        told.append(options["seed"])
        return evaluate(*args, **options)

    monkeypatch.setattr("sensorimotor.sim.weight_trials.evaluate", noted)
    with closing(PushTWorlds(PushTConfig(max_steps=2), worlds=2)) as task:
        roll_out = play(members, task, sampler=SAMPLER)
        roll_out((0.5, 0.5), [200_000, 200_001, 100_000])
    assert told == [200_000, 100_000]


def test_an_unknown_value_is_refused(members: dict) -> None:
    with pytest.raises(ConfigError, match="unknown value 'scores'; did you mean 'score'"):
        play(members, task=None, value="scores")  # pyright: ignore[reportArgumentType]
