"""The published PushT benchmark: its observation, its replay oracle, its mirror symmetry and its reference scores."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gym_pusht")

from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.sim.baselines import HoldStill
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t_human import (
    SPEC,
    PushTHuman,
    PushTHumanConfig,
    demonstrations,
    keypoints,
    mirrored,
    observe,
    read_demonstrations,
)


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / "pusht" / "pusht_lowdim.npz") as file:
        return dict(file)


def replay(states: np.ndarray, actions: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open-loop replay of whole episodes: the state reached at every recorded step, and its coverage.

    Episodes of similar length run side by side, so that few worlds wait for the longest.
    """
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    reached, coverage = np.full(states.shape, np.nan), np.full(len(states), np.nan)
    for group in np.array_split(np.argsort(lengths), max(1, len(ends) // 16)):
        first, last = starts[group], ends[group] - 1
        task = PushTHuman(worlds=len(group))
        task.restore(states[first])
        reached[first] = task.state
        for t in range(lengths[group].max() - 1):
            step = task.step(actions[np.minimum(first + t, last)])
            running = t + 1 < lengths[group]
            reached[(first + t + 1)[running]] = task.state[running]
            coverage[(first + t + 1)[running]] = step.score[running]
    return reached, coverage


def test_keypoints_are_the_recorded_ones(recordings: dict[str, np.ndarray]) -> None:
    ours = keypoints(recordings["state"][:, 2:].astype(np.float64))
    recorded = recordings["keypoint"].reshape(-1, 18)
    error = np.abs(ours - recorded)
    assert np.median(error) < 0.005
    assert np.quantile(error, 0.999) < 0.2  # a few steps of hard contact were recorded between two sub-steps


def test_replaying_the_demonstrations_reproduces_the_recorded_states(
    recordings: dict[str, np.ndarray],
) -> None:
    """All 206 human episodes, open loop: median error under 1e-4 px, block mean under 0.05 px."""
    reached, _ = replay(recordings["state"], recordings["action"], recordings["episode_ends"])
    error = np.abs(reached[:, :4] - recordings["state"][:, :4])
    assert not np.isnan(error).any()
    assert np.median(error) < 1e-4
    assert error[:, 2:].mean() < 0.05


def test_the_mirrored_world_moves_as_the_mirror_image(recordings: dict[str, np.ndarray]) -> None:
    ends = recordings["episode_ends"][:8]
    states, actions = recordings["state"][: ends[-1]].astype(np.float64), recordings["action"][: ends[-1]]
    plain, coverage = replay(states, actions, ends)
    flipped, same = replay(mirrored(states), 512.0 - actions[:, ::-1].astype(np.float64), ends)
    difference = np.abs(mirrored(plain) - flipped)
    assert np.median(difference[:, :4]) < 1e-6
    np.testing.assert_allclose(coverage, same, atol=0.01, equal_nan=True)  # the walls are a pixel off centre


def test_mirroring_twice_is_the_identity(recordings: dict[str, np.ndarray]) -> None:
    state = recordings["state"][:100].astype(np.float64)
    twice = mirrored(mirrored(state))
    np.testing.assert_allclose(twice[:, :4], state[:, :4], atol=1e-9)
    np.testing.assert_allclose(np.cos(twice[:, 4]), np.cos(state[:, 4]), atol=1e-9)


def test_demonstrations_have_the_published_twenty_numbers(shared_data: Path) -> None:
    path = shared_data / "pusht" / "pusht_lowdim.npz"
    plain, doubled = read_demonstrations(path), read_demonstrations(path, mirror=True)
    assert sum(field.size for field in plain.spec.observation.values()) == 20
    assert (len(plain), plain.steps) == (206, 25_650)
    assert (len(doubled), doubled.steps) == (412, 51_300)
    np.testing.assert_array_equal(doubled.action[: plain.steps], plain.action)
    np.testing.assert_allclose(doubled.action[plain.steps :], 512 - plain.action[:, ::-1])


def test_recordings_of_another_shape_are_refused(shared_data: Path) -> None:
    raw = load_dataset(shared_data / "pusht" / "pusht_lowdim.npz", control_hz=10.0).select([0])
    with pytest.raises(DataError, match="state"):
        demonstrations(demonstrations(raw))


def test_a_fixed_seed_is_the_benchmarks_own_start() -> None:
    """Seeds mean what they mean in gym-pusht, so that scores can be compared with published ones."""
    import gym_pusht  # noqa: F401
    import gymnasium

    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
    expected, _ = env.reset(seed=100_003)
    task = PushTHuman(worlds=2)
    task.reset([100_002, 100_003])
    np.testing.assert_allclose(task.state[1, :4], expected[:4])
    target = np.array([200.0, 300.0])
    for _ in range(10):
        expected, reward, *_ = env.step(target)
        step = task.step(np.tile(target, (2, 1)))
    np.testing.assert_allclose(task.state[1, :4], expected[:4])
    assert step.reward[1] == pytest.approx(reward)


def test_a_block_on_the_goal_has_succeeded() -> None:
    task = PushTHuman(worlds=2)
    task.restore(np.array([[50.0, 50.0, 256.0, 256.0, np.pi / 4], [50.0, 50.0, 300.0, 256.0, np.pi / 4]]))
    step = task.step(np.array([[60.0, 60.0]] * 2))
    assert step.score[0] == pytest.approx(1.0)
    assert step.success.tolist() == step.terminated.tolist() == [True, False]
    assert step.reward[1] == pytest.approx(step.score[1] / 0.95)


def test_observation_matches_the_spec() -> None:
    observation = observe(np.zeros((3, 5)))
    assert {key: value.shape[1:] for key, value in observation.items()} == {
        key: field.shape for key, field in SPEC.observation.items()
    }


def test_doing_nothing_scores_as_measured_before() -> None:
    """Reference score on seeds 100000 to 100049: 0.139. A block that nobody pushes stays, so few steps suffice."""
    result = evaluate(HoldStill(SPEC), PushTHuman(PushTHumanConfig(max_steps=5), worlds=50), episodes=50)
    assert result.mean_reward.value == pytest.approx(0.139, abs=0.002)
    assert result.success_rate.value == 0.0


def test_wrong_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="2 seeds"):
        PushTHuman(worlds=2).reset([1])
    with pytest.raises(ConfigError, match="max_steps"):
        PushTHumanConfig(max_steps=0)
