"""The worlds: starts, robosuite's physics and predicate, observations, pictures, errors."""

import sys
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError, SimulationError
from sensorimotor.sim.manipulation.scene import Scene
from sensorimotor.sim.manipulation.task import BIN, PEG, RobosuiteConfig, RobosuiteWorlds, solved
from sensorimotor.sim.tasks import TASKS, make_task, task_name


def robosuites(worlds: RobosuiteWorlds) -> Any:
    """The environment that robosuite itself would step."""
    return worlds.scene._env


def actions(steps: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 7))


def test_a_start_depends_on_its_own_seed_alone(pair: RobosuiteWorlds) -> None:
    pair.reset([7, 8])
    first = pair.state.copy()
    pair.step(actions(2))
    pair.reset([8, 7])
    np.testing.assert_array_equal(pair.state, first[::-1])
    assert not np.array_equal(first[0], first[1])


def test_neighbours_and_threads_change_nothing(lift: RobosuiteWorlds) -> None:
    """The same world alone in one thread, and as one of three in two threads."""
    played = actions(6)
    lift.reset([5, 6])
    for action in played:
        lift.step(np.stack([action, -action]))
    threaded = RobosuiteWorlds(RobosuiteConfig(threads=2), worlds=3)
    threaded.reset([1, 5, 6])
    for action in played:
        threaded.step(np.stack([action[::-1], action, -action]))
    np.testing.assert_array_equal(threaded.state[1:], lift.state)
    threaded.close()


def test_robosuites_own_loop_computes_the_same(pair: RobosuiteWorlds) -> None:
    """robosuite turns goals in float32, hence the tolerance; two steps of contact with the table are among these."""
    pair.reset([1, 3])
    env = robosuites(pair)  # left at the start of seed 3
    for action in actions(25):
        step = pair.step(np.stack([np.zeros(7), action]))
        env.step(action)
    np.testing.assert_allclose(pair.arms[1].data.qpos, env.sim.data.qpos, atol=1e-6)
    np.testing.assert_allclose(pair.arms[1].data.qvel, env.sim.data.qvel, atol=1e-5)
    env.sim.forward()
    env._get_observations(
        force_update=True
    )  # what is relative is computed from the values of the call before
    seen = env._get_observations(force_update=True)
    state = np.concatenate([seen[f"robot0_{key}"] for key in ("eef_pos", "eef_quat", "gripper_qpos")])
    np.testing.assert_allclose(step.observation["state"][1], state, atol=1e-5)
    np.testing.assert_allclose(step.observation["environment"][1], seen["object-state"], atol=1e-5)


def test_success_is_robosuites_predicate(pair: RobosuiteWorlds) -> None:
    """The object is put in a hundred places about the goal, the hand stays where it is or goes with the object."""
    pair.reset([1, 3])
    env, scene, task = robosuites(pair), pair.scene, pair.config.task
    centre = {"lift": np.zeros(2), "can": BIN[:2], "square": PEG}[task]
    generator, spread = np.random.default_rng(0), 3 if task == "can" else 1
    joint = scene.model.body(scene.body).jntadr[0]
    address = scene.model.jnt_qposadr[joint]
    found = []
    for _ in range(100):
        place = np.array(
            [*(centre + generator.uniform(-0.06, 0.06, 2) * spread), generator.uniform(0.8, 0.9)]
        )
        env.sim.data.qpos[address : address + 3] = place
        env.sim.forward()
        tip = env.sim.data.site_xpos[scene.site].copy()
        if generator.random() < 0.3:
            tip = place + generator.normal(0, 0.03, 3)
            env.sim.data.site_xpos[scene.site] = tip
        found.append(bool(env._check_success()))
        assert solved(task, place[None], tip[None])[0] == found[-1]
    assert 5 < sum(found) < 95


@pytest.mark.parametrize(
    ("task", "place", "tip", "expected"),
    [
        ("lift", (0, 0, 0.8401), (0, 0, 1), True),
        ("lift", (0, 0, 0.8399), (0, 0, 1), False),
        ("can", (0.2, 0.4, 0.85), (0.2, 0.4, 0.90), True),
        ("can", (0.2, 0.4, 0.85), (0.2, 0.4, 0.89), False),  # still in the hand: less than 4.24 cm away
        ("can", (0.2, 0.27, 0.85), (0.2, 0.4, 0.95), False),  # in the bin beside
        ("square", (0.23, 0.1, 0.86), (0.2, 0.15, 0.86), True),
        ("square", (0.23, 0.1, 0.88), (0.2, 0.15, 0.86), False),  # on top of the peg
    ],
)
def test_success_by_hand(task: Any, place: tuple, tip: tuple, expected: bool) -> None:
    assert solved(task, np.array([place]), np.array([tip]))[0] == expected


def test_a_restored_world_goes_on_as_the_recorded_one_did(lift: RobosuiteWorlds) -> None:
    first = lift.reset([11, 12])
    start = lift.state.copy()
    path = [lift.step(np.stack([a, a])).observation["state"] for a in actions(4)]
    again = lift.restore(start)
    for key, value in first.items():
        np.testing.assert_array_equal(again[key], value)
    for a, seen in zip(actions(4), path, strict=True):
        np.testing.assert_array_equal(lift.step(np.stack([a, a])).observation["state"], seen)


def test_an_action_is_what_it_says(lift: RobosuiteWorlds) -> None:
    """Ten steps of half the largest upward action raise the hand, and +1 closes the fingers."""
    before = lift.reset([0, 1])["state"]
    for _ in range(10):
        step = lift.step(np.tile([0, 0, 0.5, 0, 0, 0, 1.0], (2, 1)))
    moved = step.observation["state"] - before
    assert (moved[:, 2] > 0.04).all()
    assert (np.abs(moved[:, :2]) < 0.01).all()
    gap = step.observation["state"][:, 7] - step.observation["state"][:, 8]
    assert (gap < 0.5 * (before[:, 7] - before[:, 8])).all()


def test_every_task_knows_its_name_and_episodes_are_robomimics_400_steps() -> None:
    assert {TASKS[name].max_steps for name in ("lift", "can", "square")} == {400}
    assert [task_name(TASKS[name]) for name in TASKS] == list(TASKS)


def test_truncation_comes_with_the_last_step(lift: RobosuiteWorlds) -> None:
    lift.reset([0, 1])
    lift.max_steps, before = 2, lift.max_steps
    try:
        ends = [lift.step(np.zeros((2, 7))).truncated.tolist() for _ in range(2)]
    finally:
        lift.max_steps = before
    assert ends == [[False, False], [True, True]]


def test_bad_actions_are_named(lift: RobosuiteWorlds) -> None:
    lift.reset([0, 1])
    with pytest.raises(ConfigError, match=r"shaped \(2, 7\), got \(2, 3\)"):
        lift.step(np.zeros((2, 3)))
    with pytest.raises(SimulationError, match="world 1 has an action that is not finite"):
        lift.step(np.stack([np.zeros(7), np.full(7, np.nan)]))
    with pytest.raises(ConfigError, match="reset needs 2 seeds"):
        lift.reset([1])
    with pytest.raises(ConfigError, match=r"states must be shaped \(2, 32\)"):
        lift.restore(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": "lit"}, "did you mean 'lift'"),
        ({"cameras": ("agent_view",)}, "did you mean 'agentview'"),
        ({"images": True, "cameras": ()}, "needs at least one of the cameras agentview"),
        ({"image_size": 4}, "within 8..512, got 400 and 4"),
        ({"threads": -1}, "threads must be 0"),
    ],
)
def test_impossible_configurations_say_what_is_possible(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RobosuiteConfig(**values)


def test_pictures_are_observed_by_every_camera(worlds: Any) -> None:
    seeing = make_task(RobosuiteConfig(task="lift", images=True, image_size=32))
    observation = seeing.reset([0])
    assert set(observation) == set(seeing.spec.observation)
    for camera in ("agentview", "robot0_eye_in_hand"):
        picture = observation[f"image.{camera}"]
        assert picture.shape == (1, 32, 32, 3)
        red = (picture[..., 0] > 120) & (picture[..., 1] < 90)
        assert 2 < red.sum() < 300  # the cube
        np.testing.assert_array_equal(picture[0], seeing.render(0, size=32, camera=camera))  # pyright: ignore
    seeing.close()


def test_building_and_resetting_print_nothing(worlds: Any, capfd: pytest.CaptureFixture[str]) -> None:
    scene = Scene("lift")
    scene.start(0)
    scene.close()
    assert capfd.readouterr() == ("", "")


def test_without_robosuite_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(ConfigError, match=r"sensorimotor\[robomimic\]"):
        make_task("can")


def test_a_world_takes_megabytes(pair: RobosuiteWorlds) -> None:
    """robosuite's models ask for 1.3 GB in every world, and fifty of them could not be had."""
    pair.reset([0, 1])
    pair.step(np.zeros((2, 7)))
    data = pair.arms[0].data
    assert data.narena < 64e6
    assert data.maxuse_arena < 0.1 * data.narena


def test_a_mujoco_that_robosuite_does_not_run_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mujoco.__version__", "3.8.1")
    with pytest.raises(ConfigError, match=r"does not run on MuJoCo 3\.8\.1; install a version below 3\.8"):
        make_task("lift")
