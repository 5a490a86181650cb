"""Recorded demonstrations: complete, repeatable, replayable, and mirrored exactly."""

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.spec import check_connection
from sensorimotor.sim.demos import DEMONSTRATIONS, Recording, record_demos
from sensorimotor.sim.expert import ExpertConfig
from sensorimotor.sim.mirror import mirrored
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, make_spec
from sensorimotor.sim.push_t_geometry import OUTLINE

FAST = ExpertConfig(candidates=8, horizon=6, threads=1)
SHORT = PushTConfig(max_steps=12, threads=1)


def record(*, seed: int = 0, task: PushTConfig = SHORT, expert: ExpertConfig = FAST) -> Recording:
    """Two short tracks, solved or not."""
    return record_demos(task, expert, episodes=2, first_seed=seed, keep_failures=True)


@pytest.fixture(scope="module")
def bundled() -> Episodes:
    return load_dataset(DEMONSTRATIONS)


def start_of(episodes: Episodes, index: int) -> np.ndarray:
    """Positions (5,) of an episode's first observation: the pose that takes the outline to the corners."""
    row = int(episodes.starts[index])
    corners = episodes.observation["environment"][row].reshape(8, 2).astype(np.float64)
    outline, seen = OUTLINE - OUTLINE.mean(axis=0), corners - corners.mean(axis=0)
    crossed = outline[:, 0] * seen[:, 1] - outline[:, 1] * seen[:, 0]
    yaw = np.arctan2(crossed.sum(), (outline * seen).sum())
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    centre = corners.mean(axis=0) - turn @ OUTLINE.mean(axis=0)
    return np.array([*centre, yaw, *episodes.observation["state"][row]])


def replay(episodes: Episodes, indices: range) -> tuple[np.ndarray, np.ndarray]:
    """Largest distance from the recorded corners, and last coverage, of each episode played again."""
    task = PushTWorlds(PushTConfig(threads=1))
    errors, covered = [], []
    for index in indices:
        task.restore(start_of(episodes, index)[None])
        begin, end = int(episodes.starts[index]), int(episodes.ends[index])
        worst, score = 0.0, 0.0
        for row in range(begin, end):
            step = task.step(episodes.action[row][None])
            score = float(step.score[0])
            if row + 1 < end:
                seen = step.observation["environment"][0] - episodes.observation["environment"][row + 1]
                worst = max(worst, float(np.abs(seen).max()))
        errors.append(worst)
        covered.append(score)
    return np.array(errors), np.array(covered)


def test_the_same_seeds_give_the_same_demonstrations_whatever_the_threads() -> None:
    first = record().episodes
    threaded = record(
        task=PushTConfig(max_steps=12, threads=2), expert=ExpertConfig(candidates=8, horizon=6, threads=2)
    ).episodes
    np.testing.assert_array_equal(threaded.action, first.action)
    for key, value in first.observation.items():
        np.testing.assert_array_equal(threaded.observation[key], value)
    assert not np.array_equal(record(seed=5).episodes.observation["state"], first.observation["state"])


def test_an_episode_depends_on_its_own_seed_only() -> None:
    both, second = record().episodes, record(seed=1).episodes
    np.testing.assert_array_equal(both.select([1]).action, second.select([0]).action)


def test_tracks_that_ran_out_of_time_are_named_and_marked() -> None:
    recording = record()
    assert recording.seeds == recording.failed == (0, 1)
    episodes = recording.episodes
    assert episodes.success is not None
    assert episodes.terminated is not None
    assert not episodes.success.any()
    assert not episodes.terminated.any()
    np.testing.assert_array_equal(episodes.lengths, [12, 12])
    assert episodes.spec == make_spec(SHORT)


def test_failures_are_left_out_and_too_many_are_an_error() -> None:
    with pytest.raises(DataError, match="0 of 20 starts"):
        record_demos(
            PushTConfig(max_steps=1, threads=1),
            ExpertConfig(candidates=2, horizon=2, threads=1),
            episodes=2,
        )


@pytest.mark.parametrize(("episodes", "seed"), [(0, 0), (1, -1), (1, 100_000), (2, 99_999)])
def test_starts_kept_for_evaluation_are_refused(episodes: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="100000 and up are for evaluation"):
        record_demos(SHORT, FAST, episodes=episodes, first_seed=seed)


def test_failed_starts_do_not_push_the_recording_into_evaluation() -> None:
    hopeless = PushTConfig(max_steps=1, threads=1)
    with pytest.raises(DataError, match="begin earlier than 99999"):
        record_demos(hopeless, FAST, episodes=1, first_seed=99_999)


def test_a_success_ends_with_a_few_steps_at_rest() -> None:
    """A task that is easy to finish: every start ends within its hold."""
    easy = PushTConfig(max_steps=300, success_coverage=0.01, finish_coverage=0.02, threads=1)
    recording = record_demos(easy, ExpertConfig(candidates=32, threads=1), episodes=1)
    episodes = recording.episodes
    assert episodes.reward is not None
    assert episodes.terminated is not None
    assert (episodes.reward[-4:] >= 1.0).all()
    np.testing.assert_array_equal(np.flatnonzero(episodes.terminated), episodes.ends - 1)


def test_the_bundled_demonstrations_replay_to_the_goal(bundled: Episodes) -> None:
    """The file belongs to this physics: float32 actions from float32 starts reproduce what was seen."""
    errors, covered = replay(bundled, range(0, 200, 10))
    assert np.median(errors) < 1e-6
    assert errors.max() < 1e-3
    assert covered.min() > 0.93


def test_their_mirror_images_replay_too(bundled: Episodes) -> None:
    errors, covered = replay(mirrored(bundled), range(0, 200, 20))
    assert np.median(errors) < 1e-5
    assert np.mean(covered > 0.93) >= 0.9


def test_the_bundled_demonstrations_are_complete(bundled: Episodes) -> None:
    assert len(bundled) == 200
    check_connection(bundled.spec, make_spec(PushTConfig()), user_name="dataset")
    assert bundled.success is not None
    assert bundled.success.all()
    bundled.check_finite()
    assert DEMONSTRATIONS.stat().st_size < 2_000_000
    seeds = bundled.metadata["seeds"]
    assert len(set(seeds)) == 200
    assert max(seeds) < 100_000
    starts = PushTWorlds(PushTConfig(threads=1), worlds=200).reset(seeds)
    for key, value in starts.items():
        np.testing.assert_array_equal(bundled.observation[key][bundled.starts], value)
