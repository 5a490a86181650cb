"""Windows: padding and masks by hand, equality with a loop over single items, and batches as sets of rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorimotor.data.episodes import Episodes, open_episodes, save_episodes
from sensorimotor.data.errors import DataError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows, split_episodes

Make = Callable[..., Episodes]


def counted(lengths: list[int]) -> Episodes:
    """State and action of step n are both n."""
    steps = np.arange(sum(lengths), dtype=np.float32)[:, None]
    spec = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10.0)
    return Episodes(spec=spec, observation={"state": steps}, action=steps.copy(), ends=np.cumsum(lengths))


def windows(lengths: list[int], observation_steps: int, horizon: int, start: int = 0) -> Windows:
    episodes = counted(lengths)
    spec = episodes.spec.chunked(
        observation_steps=observation_steps, horizon=horizon, execute=max(1, horizon + start), start=start
    )
    return Windows(episodes, spec)


@pytest.mark.parametrize(
    ("now", "seen", "chunk", "real"),
    [
        (0, [0, 0, 0], [0, 0, 1, 2], [False, True, True, True]),
        (1, [0, 0, 1], [0, 1, 2, 2], [True, True, True, False]),
        (2, [0, 1, 2], [1, 2, 2, 2], [True, True, False, False]),
        (3, [3, 3, 3], [3, 3, 4, 5], [False, True, True, True]),  # another episode begins
        (6, [4, 5, 6], [5, 6, 6, 6], [True, True, False, False]),
    ],
)
def test_edges_are_repeated_and_masked_as_counted_by_hand(
    now: int, seen: list[int], chunk: list[int], real: list[bool]
) -> None:
    batch = windows([3, 4], 3, 4, start=-1).batch(np.array([now]))
    assert batch.observation["state"][0, :, 0].tolist() == seen
    assert batch.action[0, :, 0].tolist() == chunk
    assert batch.mask[0].tolist() == real


@st.composite
def cases(draw: st.DrawFn) -> tuple[Windows, list[int]]:
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    steps = draw(st.integers(1, 4))
    start = draw(st.integers(1 - steps, 0))
    made = windows(lengths, steps, draw(st.integers(1 - start, 9)), start)
    return made, draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=8))


def one_by_one(made: Windows, now: int) -> tuple[list[float], list[float], list[bool]]:
    """The definition, one number at a time."""
    ends = made.episodes.ends.tolist()
    episode = next(i for i, end in enumerate(ends) if now < end)
    first, last = (0, *ends)[episode], ends[episode] - 1
    seen = [float(max(first, now - back)) for back in reversed(range(made.spec.observation_steps))]
    wanted = [now + made.spec.start + ahead for ahead in range(made.spec.horizon)]
    return seen, [float(min(max(w, first), last)) for w in wanted], [first <= w <= last for w in wanted]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_batch_equals_a_loop_over_its_items(case: tuple[Windows, list[int]]) -> None:
    made, index = case
    batch = made.batch(np.array(index))
    for row, now in enumerate(index):
        seen, chunk, real = one_by_one(made, now)
        assert batch.observation["state"][row, :, 0].tolist() == seen
        assert batch.action[row, :, 0].tolist() == chunk
        assert batch.mask[row].tolist() == real


def test_every_step_is_one_window_and_its_current_action_is_real() -> None:
    made = windows([3, 1, 4], 2, 3)
    batch = made.batch(np.arange(len(made)))
    assert len(made) == 8
    assert batch.mask[:, 0].all()
    assert batch.action[:, 0, 0].tolist() == list(range(8))


def test_values_keep_their_type_and_bits(make_episodes: Make) -> None:
    episodes = make_episodes()
    batch = Windows(episodes, episodes.spec).batch(np.arange(episodes.steps))
    for key, array in episodes.observation.items():
        np.testing.assert_array_equal(batch.observation[key][:, 0].numpy(), array)
        assert batch.observation[key].dtype == torch.from_numpy(array).dtype


def test_a_memory_map_gives_the_same_windows(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes()
    save_episodes(episodes, tmp_path / "set")
    spec = episodes.spec.chunked(observation_steps=2, horizon=3, execute=2)
    index = np.arange(episodes.steps)
    mapped = Windows(open_episodes(tmp_path / "set"), spec).batch(index)
    whole = Windows(episodes, spec).batch(index)
    assert torch.equal(mapped.action, whole.action)
    assert all(torch.equal(mapped.observation[key], value) for key, value in whole.observation.items())


@pytest.mark.parametrize("index", [[-1], [7], [0, 99]])
def test_an_index_outside_is_refused(index: list[int]) -> None:
    with pytest.raises(DataError, match=r"\[0, 7\)"):
        windows([3, 4], 1, 1).batch(np.array(index))


def test_a_policy_that_does_not_fit_the_data_is_refused() -> None:
    episodes = counted([3])
    wrong = Spec(observation={"state": Field(shape=(2,))}, action=Field(shape=(1,)), control_hz=10.0)
    with pytest.raises(SpecError, match=r"policy \(2,\), dataset \(1,\)"):
        Windows(episodes, wrong)


def test_a_split_shares_no_episode_and_loses_none() -> None:
    episodes = counted([2, 3, 4, 5, 6])
    train, held = split_episodes(episodes, held_out=0.4, generator=np.random.default_rng(1))
    assert held is not None
    assert len(held) == 2
    steps = sorted([*train.action[:, 0].tolist(), *held.action[:, 0].tolist()])
    assert steps == list(range(20))
    again, _ = split_episodes(episodes, held_out=0.4, generator=np.random.default_rng(1))
    np.testing.assert_array_equal(again.action, train.action)


def test_a_split_that_leaves_nothing_is_refused() -> None:
    assert split_episodes(counted([2, 2]), held_out=0.0, generator=np.random.default_rng(0))[1] is None
    with pytest.raises(DataError, match="leaves none to train on"):
        split_episodes(counted([2, 2]), held_out=0.9, generator=np.random.default_rng(0))
    with pytest.raises(DataError, match="held_out"):
        split_episodes(counted([2, 2]), held_out=1.0, generator=np.random.default_rng(0))
