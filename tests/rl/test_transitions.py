"""From recorded steps to what a critic learns from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import SpecError
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.rl.labels import LabelsConfig
from sensorimotor.rl.transitions import Transitions, with_texts


def transitions(episodes: Episodes, *, actions: int = 1, keys: tuple[str, ...] = ()) -> Transitions:
    chunk = ChunkConfig(observation=keys, observation_steps=2, horizon=actions, execute=1)
    return Transitions(episodes, chunk.apply(episodes.spec), LabelsConfig())


def test_one_step_is_followed_by_the_next(make_episodes: Callable) -> None:
    episodes = make_episodes(steps=(5, 4))
    batch = transitions(episodes).batch(np.array([0, 1, 8]))
    state = episodes.observation["state"]
    assert np.array_equal(batch.observation["state"], state[np.array([[0, 0], [0, 1], [7, 8]])])
    assert np.array_equal(batch.later["state"], state[np.array([[0, 1], [1, 2], [7, 8]])])
    torch.testing.assert_close(batch.action, torch.from_numpy(episodes.action)[[0, 1, 8]][:, None])
    torch.testing.assert_close(batch.reward, torch.tensor([-1.0, -1, 0]))
    torch.testing.assert_close(batch.discount, torch.tensor([0.98, 0.98, 0]))
    torch.testing.assert_close(batch.returns, torch.tensor([-1.98, -1, 0]))


@pytest.mark.parametrize("actions", [1, 2, 4])
def test_the_returns_of_the_data_satisfy_the_equation_that_critics_learn_from(
    make_episodes: Callable, actions: int
) -> None:
    episodes = make_episodes(steps=(9, 6, 3), success=(True, False, True))
    source = transitions(episodes, actions=actions)
    batch = source.batch(np.arange(len(source)))
    later = np.minimum(np.arange(len(source)) + actions, source.windows.last)
    torch.testing.assert_close(batch.returns, batch.reward + batch.discount * batch.returns[later])


def test_several_actions_bring_their_rewards_together(make_episodes: Callable) -> None:
    batch = transitions(make_episodes(steps=(8,)), actions=4).batch(np.array([0, 3, 6]))
    torch.testing.assert_close(batch.reward[0], torch.tensor(-1 - 0.98 - 0.98**2 - 0.98**3))
    torch.testing.assert_close(batch.discount, torch.tensor([0.98**4, 0, 0]))
    torch.testing.assert_close(batch.reward[1:], torch.tensor([-1.98, 0]))
    assert batch.action.shape == (3, 4, 2)


def test_another_text_makes_a_failure(make_episodes: Callable) -> None:
    source = transitions(make_episodes(told=True), actions=2, keys=("state", "instruction"))
    batch = source.batch(np.array([0, 13]))
    changed = with_texts(batch, "instruction", ["a", "b"], torch.tensor([True, False]), source.config)
    assert changed.observation["instruction"] == changed.later["instruction"] == ["a", "b"]
    torch.testing.assert_close(changed.returns, torch.tensor([-50.0, batch.returns[1].item()]))
    torch.testing.assert_close(changed.reward, torch.tensor([-1.98, batch.reward[1].item()]))
    torch.testing.assert_close(changed.discount, torch.tensor([0.98**2, batch.discount[1].item()]))


def test_data_of_another_kind_is_refused(make_episodes: Callable) -> None:
    spec = make_episodes(told=True).spec.keep(("state", "instruction"))
    with pytest.raises(SpecError, match="needs observation 'instruction'"):
        Transitions(make_episodes(), spec, LabelsConfig())


def test_a_batch_moves_whole_and_keeps_its_texts(make_episodes: Callable) -> None:
    batch = transitions(make_episodes(told=True), keys=("state", "instruction")).batch(np.array([0, 13]))
    moved = batch.to("meta")
    tensors = (moved.action, moved.reward, moved.discount, moved.returns, moved.observation["state"])
    assert all(tensor.is_meta for tensor in (*tensors, moved.later["state"]))
    assert (
        moved.observation["instruction"]
        == batch.observation["instruction"]
        == ["to the left", "to the right"]
    )
