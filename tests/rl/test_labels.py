"""What recorded steps are worth."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.rl.labels import LabelsConfig, label, monte_carlo


def test_returns_of_the_card_with_both_kinds_of_labels(make_episodes: Callable) -> None:
    worked_out = label(make_episodes(steps=(6,)), LabelsConfig())
    np.testing.assert_allclose(worked_out.returns, [-2.9404, -1.98, -1, 0, 0, 0], atol=1e-12)
    reached = np.array([0, 0, 0, 1, 1, 1.0])
    older = monte_carlo(reached, 1 - reached, np.array([6]), 0.98)
    np.testing.assert_allclose(older, [0.941192, 0.9604, 0.98, 1, 1, 1], atol=1e-12)


def test_the_first_of_fifty_steps_returns_what_the_card_says(make_episodes: Callable) -> None:
    assert label(make_episodes(steps=(50,)), LabelsConfig()).returns[0] == pytest.approx(-30.653805, abs=5e-7)


def test_episodes_know_nothing_of_each_other(make_episodes: Callable) -> None:
    alone = [label(make_episodes(steps=(n,)), LabelsConfig()).returns for n in (5, 9, 2)]
    together = label(make_episodes(steps=(5, 9, 2)), LabelsConfig()).returns
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_what_failed_goes_on_for_ever(make_episodes: Callable) -> None:
    config = LabelsConfig()
    labels = label(make_episodes(steps=(4, 5), success=(False, True)), config)
    np.testing.assert_allclose(labels.returns[:4], config.worst)
    assert config.worst == pytest.approx(-50)
    assert labels.mask[:4].all()
    np.testing.assert_array_equal(labels.mask[4:], [1, 1, 0, 0, 0])


def test_rewards_of_the_data_end_where_it_says_and_are_taken_to_last_where_it_does_not(
    make_episodes: Callable,
) -> None:
    episodes = replace(make_episodes(steps=(2, 3)), reward=np.array([1, 2, 3, 4, 5], dtype=np.float32))
    ended = replace(episodes, terminated=np.array([0, 1, 0, 0, 0], dtype=bool))
    config = LabelsConfig(source="rewards", discount=0.5)
    np.testing.assert_allclose(label(ended, config).returns, [2, 2, 7.5, 9, 10])
    np.testing.assert_allclose(label(episodes, config).returns[:2], [3, 4])


def test_what_is_missing_or_impossible_is_named(make_episodes: Callable) -> None:
    with pytest.raises(DataError, match=r"have none; use labels\.source=success"):
        label(make_episodes(), LabelsConfig(source="rewards"))
    spoilt = replace(make_episodes(steps=(2,)), reward=np.array([0, np.nan]))
    with pytest.raises(DataError, match="1 rewards are not finite"):
        label(spoilt, LabelsConfig(source="rewards"))
    with pytest.raises(ConfigError, match="unknown labels 'reward'; did you mean 'rewards'"):
        LabelsConfig(source="reward")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"discount must lie in \[0, 1\), got 1"):
        LabelsConfig(discount=1.0)
    with pytest.raises(ConfigError, match="ending must be at least 1 step, got 0"):
        LabelsConfig(ending=0)
