"""Mirror images of recordings are what the mirrored world would have recorded."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.sim.demos import DEMONSTRATIONS
from sensorimotor.sim.mirror import mirrored
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, make_spec, observe
from sensorimotor.sim.push_t_goals import INSTRUCTIONS
from sensorimotor.sim.render import make_context

SHORT = PushTConfig(max_steps=5, threads=1)
TOLD = PushTConfig(goals="two", threads=1)


@pytest.fixture(scope="module")
def bundled() -> Episodes:
    return load_dataset(DEMONSTRATIONS)


def told(qpos: np.ndarray, action: np.ndarray, words: Sequence[str]) -> Episodes:
    """A recording of a table with two goals."""
    observation = {**observe(qpos), "instruction": np.array(words)}
    return Episodes(spec=make_spec(TOLD), observation=observation, action=action, ends=np.array([len(qpos)]))


def scattered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (count, 5) and the same in a mirror that exchanges left and right."""
    qpos = np.random.default_rng(1).uniform(-0.2, 0.2, (count, 5)) * [1, 1, 15, 1, 1]
    return qpos, np.column_stack([-qpos[:, 0], qpos[:, 1], np.pi - qpos[:, 2], -qpos[:, 3], qpos[:, 4]])


def test_mirroring_twice_is_the_identity(bundled: Episodes) -> None:
    twice = mirrored(mirrored(bundled))
    np.testing.assert_array_equal(twice.action, bundled.action)
    for key, value in bundled.observation.items():
        np.testing.assert_array_equal(twice.observation[key], value)


def test_mirrored_observations_are_those_of_the_mirrored_world() -> None:
    generator = np.random.default_rng(0)
    qpos = generator.uniform(-0.2, 0.2, (30, 5)) * [1, 1, 15, 1, 1]
    image = np.column_stack([qpos[:, 1], qpos[:, 0], np.pi / 2 - qpos[:, 2], qpos[:, 4], qpos[:, 3]])
    action = generator.uniform(-0.2, 0.2, (30, 2)).astype(np.float32)
    seen, expected = (
        Episodes(spec=make_spec(SHORT), observation=observe(q), action=a, ends=np.array([30]))
        for q, a in ((qpos, action), (image, np.ascontiguousarray(action[:, ::-1])))
    )
    np.testing.assert_array_equal(mirrored(seen).action, expected.action)
    for key, value in expected.observation.items():
        np.testing.assert_allclose(mirrored(seen).observation[key], value, atol=1e-7)


def test_what_has_no_known_mirror_image_is_refused() -> None:
    seen = make_spec(SHORT).keep(("environment",))
    episodes = Episodes(
        spec=seen,
        observation={"environment": np.zeros((1, 16), dtype=np.float32)},
        action=np.zeros((1, 2), dtype=np.float32),
        ends=np.array([1]),
    )
    with pytest.raises(DataError, match=r"can be mirrored, got \['environment'\]"):
        mirrored(episodes)


def test_with_two_goals_left_and_right_change_places() -> None:
    qpos, image = scattered(30)
    action = qpos[:, 3:].astype(np.float32)
    left, right = INSTRUCTIONS
    seen = mirrored(told(qpos, action, [left, right] * 15))
    expected = told(image, action * np.array([-1, 1], np.float32), [right, left] * 15)
    np.testing.assert_array_equal(seen.action, expected.action)
    for key, value in expected.observation.items():
        if key == "instruction":
            assert seen.observation[key].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(seen.observation[key], value, atol=1e-7)


def test_pictures_of_two_goals_are_mirrored_pixel_by_pixel() -> None:
    try:
        make_context(16).free()
    except ConfigError as error:
        pytest.skip(str(error))
    qpos, image = scattered(8)
    task = PushTWorlds(replace(TOLD, images=True, image_size=32), worlds=8)
    task.reset(list(range(8)))
    seen, expected = (task.restore(q)["image.top"] for q in (qpos, image))
    episodes = told(qpos, qpos[:, 3:].astype(np.float32), list(INSTRUCTIONS) * 4)
    episodes = replace(episodes, spec=task.spec, observation={**episodes.observation, "image.top": seen})
    np.testing.assert_array_equal(mirrored(episodes).observation["image.top"], expected)
    task.close()


def test_instructions_that_name_no_goal_have_no_mirror_image() -> None:
    qpos, _ = scattered(2)
    with pytest.raises(DataError, match=r"'dance' is not known; .*data\.mirror=false"):
        mirrored(told(qpos, qpos[:, 3:].astype(np.float32), ["dance", INSTRUCTIONS[0]]))
