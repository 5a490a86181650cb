"""PushT: starts, symmetry, judgement, and what the physics promises."""

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, judge, observe, start_positions
from sensorimotor.sim.push_t_geometry import GOAL, TIP_RADIUS, WORKSPACE, coverage, distance_to_block

SERIAL = PushTConfig(threads=1)


def exchanged(qpos: np.ndarray) -> np.ndarray:
    """Positions (N, 5) mirrored about the diagonal."""
    return np.column_stack([qpos[:, 1], qpos[:, 0], np.pi / 2 - qpos[:, 2], qpos[:, 4], qpos[:, 3]])


def pushing(task: PushTWorlds, generator: np.random.Generator) -> np.ndarray:
    return np.clip(task.physics.qpos[:, :2] + generator.normal(0, 0.05, (task.worlds, 2)), -0.25, 0.25)


def test_a_start_follows_from_its_seed_alone() -> None:
    one, many = PushTWorlds(SERIAL, worlds=1), PushTWorlds(SERIAL, worlds=3)
    first, other = one.reset([7]), many.reset([3, 7, 7])
    for key in first:
        np.testing.assert_array_equal(other[key][1], first[key][0])
        np.testing.assert_array_equal(other[key][2], first[key][0])
    assert not np.array_equal(other["state"][0], other["state"][1])


def test_starts_keep_their_promises() -> None:
    starts = start_positions(range(500), SERIAL)
    assert (distance_to_block(starts[:, :3], starts[:, 3:]) > TIP_RADIUS).all()
    assert np.abs(starts[:, :2]).max() <= SERIAL.start_range
    assert np.abs(starts[:, 3:]).max() < WORKSPACE
    assert coverage(starts[:, :3]).max() < SERIAL.success_coverage
    # Uniform yaw: its first circular moment has a standard deviation of 1 / sqrt(1000) per axis.
    assert np.abs(np.exp(1j * starts[:, 2]).mean()) < 0.13
    np.testing.assert_allclose(starts[:, :2].mean(axis=0), 0.0, atol=4 * 0.12 / np.sqrt(3 * 500))


def test_a_wider_start_range_is_used() -> None:
    wide = PushTConfig(start_range=0.15)
    assert np.abs(start_positions(range(100), wide)[:, :2]).max() > 0.13


def test_mirrored_worlds_stay_mirrored() -> None:
    task, image = PushTWorlds(SERIAL, worlds=16), PushTWorlds(SERIAL, worlds=16)
    task.reset(range(16))
    image.restore(exchanged(task.physics.qpos))
    generator = np.random.default_rng(0)
    for _ in range(15):
        action = pushing(task, generator)
        left, right = task.step(action), image.step(action[:, ::-1])
        np.testing.assert_allclose(right.score, left.score, atol=1e-6)
        np.testing.assert_allclose(right.observation["state"], left.observation["state"][:, ::-1], atol=1e-6)
        corners = left.observation["environment"].reshape(16, 8, 2)
        np.testing.assert_allclose(
            right.observation["environment"].reshape(16, 8, 2), corners[:, ::-1, ::-1], atol=1e-6
        )


def test_the_pusher_reaches_its_target_and_stops_there() -> None:
    task = PushTWorlds(SERIAL)
    task.restore(np.array([[0.1, 0.1, 0.0, -0.2, -0.2]]))
    for _ in range(5):
        seen = task.step(np.array([[-0.1, -0.2]])).observation["state"]
    np.testing.assert_allclose(seen, [[-0.1, -0.2]], atol=1e-3)


def test_targets_beyond_the_workspace_are_clamped() -> None:
    task, inside = PushTWorlds(SERIAL), PushTWorlds(SERIAL)
    for world in (task, inside):
        world.reset([0])
    for _ in range(4):
        far, near = task.step(np.array([[9.0, -9.0]])), inside.step(np.array([[WORKSPACE, -WORKSPACE]]))
    np.testing.assert_array_equal(far.observation["state"], near.observation["state"])


def test_a_block_left_alone_stays_where_it_is() -> None:
    task = PushTWorlds(SERIAL, worlds=8)
    task.reset(range(8))
    before = task.physics.qpos.copy()
    for _ in range(20):
        task.step(before[:, 3:])
    np.testing.assert_array_equal(task.physics.qpos[:, :3], before[:, :3])


def test_a_slow_push_through_the_centre_moves_the_block_straight_ahead() -> None:
    """Quasi-static: pushed at the bar's middle along the symmetry axis, the block keeps its yaw and follows."""
    task = PushTWorlds(SERIAL)
    task.restore(np.array([[0.0, 0.0, 0.0, -0.075, 0.0]]))
    for target in np.linspace(-0.075, 0.025, 40):
        task.step(np.array([[target, 0.0]]))
    x, y, yaw, tip, _ = task.physics.qpos[0]
    assert yaw == pytest.approx(0.0, abs=1e-6)
    assert y == pytest.approx(0.0, abs=1e-6)
    contact = TIP_RADIUS + 19 / 14 * 0.035  # the tip touches the bar's outer face
    assert x - tip == pytest.approx(contact, abs=1e-3)


def test_the_block_cannot_be_pushed_out_of_reach() -> None:
    task = PushTWorlds(SERIAL, worlds=16)
    task.reset(range(16))
    generator = np.random.default_rng(3)
    for _ in range(100):
        outward = task.physics.qpos[:, :2] * 2 + generator.normal(0, 0.03, (16, 2))
        task.step(np.clip(outward, -0.25, 0.25))
    assert np.abs(task.physics.qpos[:, :2]).max() < 0.165


def test_the_judgement_is_coverage() -> None:
    at_goal = np.array([[*GOAL, 0.2, 0.2], [0.15, 0.15, 0.0, -0.2, -0.2]])
    covered, reward = judge(at_goal, SERIAL)
    np.testing.assert_allclose(covered, [1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(reward, [1.0, 0.0], atol=1e-9)
    half = at_goal[:1] + np.array([[0.02, 0, 0, 0, 0]])
    covered, reward = judge(half, SERIAL)
    np.testing.assert_allclose(reward, covered / 0.9)


@pytest.mark.parametrize(
    ("offset", "success", "terminated"), [(0.0, True, True), (0.0035, True, False), (0.02, False, False)]
)
def test_success_comes_before_the_end(offset: float, success: bool, terminated: bool) -> None:
    task = PushTWorlds(SERIAL)
    task.restore(np.array([[GOAL[0] + offset, GOAL[1], GOAL[2], 0.2, 0.2]]))
    step = task.step(np.array([[0.2, 0.2]]))
    assert (bool(step.success[0]), bool(step.terminated[0])) == (success, terminated)
    assert not step.truncated[0]


def test_a_world_is_truncated_at_max_steps_unless_it_has_ended() -> None:
    task = PushTWorlds(PushTConfig(threads=1, max_steps=3), worlds=2)
    task.restore(np.array([[*GOAL, 0.2, 0.2], [0.1, 0.1, 0.0, 0.2, 0.2]]))
    steps = [task.step(np.full((2, 2), 0.2)) for _ in range(3)]
    assert not steps[1].truncated.any()
    np.testing.assert_array_equal(steps[2].truncated, [False, True])
    np.testing.assert_array_equal(steps[2].terminated, [True, False])


def test_observations_are_what_the_spec_says() -> None:
    config = PushTConfig(threads=1, images=True, image_size=32)
    task = PushTWorlds(config, worlds=2)
    for seen in (task.reset([0, 1]), task.step(np.zeros((2, 2))).observation):
        assert set(seen) == set(task.spec.observation)
        for key, field in task.spec.observation.items():
            assert seen[key].shape == (2, *field.shape)
            assert seen[key].dtype == np.dtype(field.dtype)
    task.close()


def test_an_observation_is_a_snapshot() -> None:
    task = PushTWorlds(SERIAL)
    first = task.reset([0])
    kept = {key: value.copy() for key, value in first.items()}
    task.step(np.zeros((1, 2)))
    for key, value in kept.items():
        np.testing.assert_array_equal(first[key], value)


def test_corners_turn_with_the_block() -> None:
    still, turned = observe(np.array([[0, 0, 0, 0, 0.0]])), observe(np.array([[0, 0, np.pi, 0, 0.0]]))
    np.testing.assert_allclose(turned["environment"], -still["environment"], atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"success_coverage": 0.96}, "success_coverage"),
        ({"finish_coverage": 1.1}, "finish_coverage"),
        ({"start_range": float("nan")}, "start_range"),
        ({"start_range": 0.3}, "start_range"),
        ({"threads": -1}, "threads"),
        ({"image_size": 4}, "image_size"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PushTConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_wrong_counts_are_refused() -> None:
    task = PushTWorlds(SERIAL, worlds=2)
    with pytest.raises(ConfigError, match="2 seeds"):
        task.reset([1])
    task.reset([1, 2])
    with pytest.raises(ConfigError, match=r"\(2, 2\)"):
        task.step(np.zeros(2))


def test_a_displaced_block_lies_at_rest_elsewhere_and_nothing_else_has_changed() -> None:
    task = PushTWorlds(PushTConfig(max_steps=3), worlds=2)
    task.restore(np.array([[0.0, 0.0, 0.3, -0.1, 0.0], [0.05, 0.0, 0.1, 0.2, 0.2]]))
    task.step(np.array([[0.1, 0.0], [0.0, 0.2]]))
    before, velocity = task.physics.state.copy(), task.physics.qvel.copy()
    seen = task.displace(np.array([1]), np.array([[0.0, -0.05]]))
    after = task.physics.state
    assert np.array_equal(after[0], before[0])
    assert np.flatnonzero(after[1] != before[1]).tolist() == [2]  # y of the block; its clock went on
    np.testing.assert_allclose(after[1, 2], before[1, 2] - 0.05)
    assert np.array_equal(task.physics.qvel[1, 3:], velocity[1, 3:])
    assert np.array_equal(seen["environment"], observe(task.physics.qpos)["environment"])
    task.step(np.zeros((2, 2)))
    assert task.step(np.zeros((2, 2))).truncated.all()


@pytest.mark.parametrize("offset", [(0.2, 0.0), (-0.1, 0.0)])
def test_a_block_cannot_be_put_out_of_reach_or_on_the_pusher(offset: tuple[float, float]) -> None:
    task = PushTWorlds(worlds=1)
    task.restore(np.array([[0.0, 0.0, 0.0, -0.1, 0.0]]))
    with pytest.raises(ConfigError, match="block of world 0 cannot be moved by"):
        task.displace(np.array([0]), np.array([offset]))
