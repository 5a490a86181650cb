from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy, make_policy
from sensorimotor.policies.nearest import NearestConfig, NearestPolicy

CONFIG = NearestConfig(chunk=ChunkConfig(observation_steps=2, horizon=4, execute=2))


def build(episodes: Episodes) -> NearestPolicy:
    policy = make_policy(CONFIG, episodes)
    assert isinstance(policy, NearestPolicy)
    return policy


def test_recorded_moments_are_answered_with_what_was_done_then(episodes: Episodes) -> None:
    policy = build(episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(episodes.steps))
    assert torch.equal(policy.sample(batch.observation)[:, 0], batch.action)
    assert policy(batch, torch.Generator()).item() == 0


def test_distances_are_taken_after_normalising(make_episodes: Callable) -> None:
    episodes = make_episodes(steps=(2,), widths={"state": 2}, actions=2)
    # The second number spans a thousand times the range of the first; unnormalised, it alone would decide.
    episodes.observation["state"][:] = [[0.0, 0.0], [1.0, 1000.0]]
    policy = make_policy(
        NearestConfig(chunk=ChunkConfig(observation_steps=1, horizon=1, execute=1)), episodes
    )
    query = {"state": torch.tensor([[[0.9, 400.0]]])}
    assert torch.equal(policy.sample(query)[0, 0, 0], torch.from_numpy(episodes.action[1]))


def test_the_first_of_equally_near_moments_is_taken(make_episodes: Callable) -> None:
    episodes = make_episodes(steps=(6,))
    for array in episodes.observation.values():
        array[:] = array[0]
    policy = build(episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(6))
    assert torch.equal(policy.sample(batch.observation)[:, 0], batch.action[:1].expand(6, -1, -1))


@pytest.mark.parametrize("count", [1, 7])
def test_queries_do_not_depend_on_their_batch(episodes: Episodes, count: int) -> None:
    policy = build(episodes)
    generator = torch.Generator().manual_seed(0)
    observation = {
        "state": torch.randn(7, 2, 2, generator=generator),
        "environment": torch.randn(7, 2, 3, generator=generator),
    }
    together = policy.sample(observation)
    some = policy.sample({key: value[:count] for key, value in observation.items()})
    assert torch.equal(together[:count], some)


def test_recordings_come_back_with_the_saved_state(episodes: Episodes) -> None:
    policy = build(episodes)
    empty = build_policy(CONFIG, policy.spec, policy.normalizer)
    empty.load_state_dict(policy.state_dict())
    batch = Windows(episodes, policy.spec).batch(np.arange(episodes.steps))
    assert torch.equal(empty.sample(batch.observation), policy.sample(batch.observation))


def test_a_longer_memory_changes_which_moment_is_nearest(make_episodes: Callable) -> None:
    episodes = make_episodes(steps=(3, 3), widths={"state": 1}, actions=1)
    episodes.observation["state"][:, 0] = [0.0, 1.0, 5.0, 2.0, 1.1, 6.0]
    query = {"state": torch.tensor([[[2.0], [1.0]]])}  # now as in step 1, before as in step 3
    chunk = ChunkConfig(observation_steps=2, horizon=1, execute=1)
    long = make_policy(NearestConfig(chunk=chunk), episodes).sample(query)
    short = make_policy(NearestConfig(chunk=replace(chunk, observation_steps=1)), episodes).sample(
        {"state": query["state"][:, 1:]}
    )
    assert short.item() == pytest.approx(episodes.action[1, 0])
    assert long.item() == pytest.approx(episodes.action[4, 0])
