"""`push_t` with two goals, of which an instruction names one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.formats import load_dataset, save_dataset
from sensorimotor.policies.policy import Policy
from sensorimotor.sim.demos import record_demos
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.expert import ExpertConfig
from sensorimotor.sim.pixels import with_images
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, judge, make_spec, start_positions
from sensorimotor.sim.push_t_env import PushT
from sensorimotor.sim.push_t_geometry import GOAL, OUTLINE, coverage, poses_of, transform
from sensorimotor.sim.push_t_goals import INSTRUCTIONS, choose_goals, goal_poses, load_model

TWO = PushTConfig(goals="two", threads=1)
LEFT, RIGHT = goal_poses("two")


def test_the_seed_chooses_the_goal_evenly_and_alone() -> None:
    chosen = choose_goals(range(400), "two")
    assert 160 < chosen.sum() < 240
    np.testing.assert_array_equal(choose_goals([7, 3], "two"), chosen[[7, 3]])
    np.testing.assert_array_equal(choose_goals(range(5), "centre"), 0)


def test_the_instruction_names_the_goal_that_counts() -> None:
    task = PushTWorlds(TWO, worlds=6)
    told = task.reset(range(6))["instruction"]
    assert task.spec.observation["instruction"].is_text
    assert told.dtype.kind == "U"
    for world, text in enumerate(told):
        right = text == "push the T to the right goal"
        np.testing.assert_array_equal(task.goals[world], RIGHT if right else LEFT)
    task.restore(np.concatenate([task.goals, np.full((6, 2), 0.24)], axis=1))
    step = task.step(np.full((6, 2), 0.24))
    assert step.success.all()
    np.testing.assert_array_equal(step.observation["instruction"], told)
    swapped = np.where(task.goals == RIGHT, LEFT, RIGHT)
    task.restore(np.concatenate([swapped, np.full((6, 2), 0.24)], axis=1))
    assert not task.step(np.full((6, 2), 0.24)).success.any()
    task.close()


def test_left_is_left_in_the_picture() -> None:
    task = PushTWorlds(TWO)
    task.reset([0])
    task.restore(np.array([[*LEFT, 0.2, 0.2]]))
    picture = task.render(0, size=64).astype(int)
    dark = picture.sum(axis=2) < 450  # the block
    assert dark[:, :32].sum() > 80
    assert dark[:, 32:].sum() < 20  # the pusher
    task.close()


def test_goals_stand_where_they_are_drawn_and_touch_nothing() -> None:
    model, plain = load_model("two"), load_model()
    assert model.nq == plain.nq
    assert model.body("goal").pos[:2] == pytest.approx(LEFT[:2])
    assert model.body("goal_1").pos[:2] == pytest.approx(RIGHT[:2])
    for name, goal in (("goal", LEFT), ("goal_1", RIGHT)):
        w, _, _, z = model.body(name).quat
        assert 2 * np.arctan2(z, w) == pytest.approx(goal[2])
        geoms = np.flatnonzero(model.geom_bodyid == model.body(name).id)
        assert len(geoms) == 4
        assert not model.geom_contype[geoms].any()
        assert not model.geom_conaffinity[geoms].any()
    assert coverage(LEFT[None], RIGHT)[0] == 0.0


def test_no_goal_is_nearly_covered_at_the_start() -> None:
    starts = start_positions(range(300), TWO)
    for goal in (LEFT, RIGHT):
        assert coverage(starts[:, :3], goal).max() < 0.5 * TWO.success_coverage


def test_one_goal_is_as_before() -> None:
    task = PushTWorlds(PushTConfig(threads=1), worlds=2)
    assert list(task.reset([4, 5])) == ["state", "environment"]
    np.testing.assert_array_equal(task.goals, np.stack([GOAL, GOAL]))
    qpos = np.array([[0.02, 0.01, 0.5, 0.2, 0.2]])
    np.testing.assert_array_equal(judge(qpos, task.config)[0], coverage(qpos[:, :3], GOAL[None]))
    task.close()


def test_the_single_environment_equals_the_worlds() -> None:
    worlds, env = PushTWorlds(TWO), PushT(TWO)
    first, (alone, _) = worlds.reset([11]), env.reset(seed=11)
    assert alone["instruction"] == first["instruction"][0]
    assert env.observation_space.contains(alone)
    action = np.array([0.1, 0.05])
    for _ in range(10):
        step = worlds.step(action[None])
        observation, reward, *_ = env.step(action)
        assert reward == step.reward[0]
        np.testing.assert_array_equal(observation["environment"], step.observation["environment"][0])
    worlds.close()
    env.close()


def test_poses_follow_from_corners() -> None:
    pose = np.random.default_rng(0).uniform(-3, 3, (50, 3))
    np.testing.assert_allclose(poses_of(transform(pose, OUTLINE)), pose, atol=1e-12)


def test_the_expert_reaches_the_named_goal_and_its_record_can_be_drawn(tmp_path: Path) -> None:
    recording = record_demos(TWO, ExpertConfig(threads=1), episodes=2, first_seed=3)
    episodes = recording.episodes
    assert set(episodes.observation["instruction"]) == set(INSTRUCTIONS)
    assert episodes.success is not None
    assert episodes.success.all()
    corners = episodes.observation["environment"][episodes.ends - 1].reshape(2, 8, 2).astype(float)
    for i, seed in enumerate(recording.seeds):
        goal = goal_poses("two")[choose_goals([seed], "two")[0]]
        assert coverage(poses_of(corners)[i : i + 1], goal)[0] > TWO.success_coverage
    save_dataset(episodes, tmp_path / "demos.hdf5")
    seen = PushTConfig(goals="two", threads=1, images=True, image_size=32)
    drawn = with_images(load_dataset(tmp_path / "demos.hdf5"), 32, goals="two")
    assert drawn.spec == make_spec(seen)
    task = PushTWorlds(seen)
    frame = task.reset([recording.seeds[0]])["image.top"][0]
    assert np.abs(frame.astype(int) - drawn.observation["image.top"][0]).max() <= 2
    task.close()


class Listener(Policy):
    """Pushes straight at the named goal's side; notes what it was told."""

    def __init__(self, steps: int) -> None:
        spec = make_spec(TWO).chunked(observation_steps=steps, horizon=4, execute=2)
        super().__init__(spec)
        self.told: list[list[str]] = []

    def sample(self, observation: Any, *, samples: int = 1, **_: Any) -> torch.Tensor:
        rows = self.check_observation(observation)
        self.told.append(observation["instruction"])
        side = torch.tensor([-0.1 if "left" in text else 0.1 for text in observation["instruction"]])
        return side.view(rows, 1, 1, 1).expand(rows, samples, 4, 2)


def test_an_evaluation_tells_every_world_its_own_instruction() -> None:
    policy = Listener(steps=2)
    task = PushTWorlds(PushTConfig(goals="two", threads=1, max_steps=6), worlds=3)
    evaluate(policy, task, episodes=3, first_seed=100_000)
    expected = [INSTRUCTIONS[i] for i in choose_goals(range(100_000, 100_003), "two")]
    assert policy.told[:3] == [expected] * 3
    assert all(len(told) == 1 for told in policy.told[3:])  # latency is measured with one world
    task.close()


def test_unknown_goals_are_refused() -> None:
    with pytest.raises(ConfigError, match="allowed: centre, two"):
        PushTConfig(goals="three")  # pyright: ignore[reportArgumentType]
