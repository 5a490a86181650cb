"""Frames drawn from numbers are those the task shows."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes, concatenate
from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.formats.robomimic import write_robomimic
from sensorimotor.data.lazy import is_lazy
from sensorimotor.data.spec import check_connection
from sensorimotor.sim.demos import DEMONSTRATIONS
from sensorimotor.sim.mirror import mirrored
from sensorimotor.sim.pixels import DrawnRows, positions, with_images
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds, make_spec, observe
from sensorimotor.sim.render import make_context

SIZE = 32
TASK = PushTConfig(images=True, image_size=SIZE, threads=1)


@pytest.fixture(scope="module", autouse=True)
def graphics() -> None:
    try:
        make_context(16).free()
    except ConfigError as error:
        pytest.skip(str(error))


def scattered(count: int = 12) -> np.ndarray:
    """Positions (count, 5) anywhere on the table, the block at any turn."""
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (count, 5)) * [0.15, 0.15, np.pi, 0.22, 0.22]


def numeric(qpos: np.ndarray) -> Episodes:
    return Episodes(
        spec=make_spec(PushTConfig()),
        observation=observe(qpos),
        action=qpos[:, 3:].astype(np.float32),
        ends=np.array([len(qpos) // 2, len(qpos)]),
    )


def shown(qpos: np.ndarray) -> np.ndarray:
    """What the task shows of these positions."""
    task = PushTWorlds(TASK, worlds=len(qpos))
    frames = task.restore(qpos)["image.top"]
    task.close()
    return frames


def test_positions_follow_from_what_is_observed() -> None:
    qpos = scattered(200)
    np.testing.assert_allclose(positions(numeric(qpos)), qpos, atol=3e-7)


def test_the_bundled_demonstrations_hold_every_position() -> None:
    bundled = load_dataset(DEMONSTRATIONS)
    again = observe(positions(bundled))
    np.testing.assert_allclose(again["environment"], bundled.observation["environment"], atol=6e-8)


def test_frames_are_drawn_as_the_task_shows_them() -> None:
    qpos = scattered()
    episodes = with_images(numeric(qpos), SIZE)
    check_connection(episodes.spec, make_spec(TASK))
    frames = episodes.observation["image.top"]
    assert is_lazy(frames)
    difference = np.abs(frames[:].astype(int) - shown(qpos))
    assert (difference > 0).mean() < 1e-3  # positions went through single precision


def test_frames_go_to_a_file_and_come_back_lazily(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    episodes = with_images(
        numeric(scattered()), SIZE, progress=lambda done, total: said.append((done, total))
    )
    write_robomimic(episodes, tmp_path / "frames.hdf5", compression="gzip")
    assert said[-1] == (12, 12)
    assert len(said) == 12  # each drawn once, though the file holds next observations too
    again = load_dataset(tmp_path / "frames.hdf5", lazy_images=True)
    np.testing.assert_array_equal(again.observation["image.top"][:], episodes.observation["image.top"][:])
    assert again.spec == episodes.spec


@pytest.mark.parametrize("lazy", [True, False])
def test_pictures_of_the_mirrored_world_are_the_mirrored_pictures(lazy: bool) -> None:
    """Pixel by pixel: the camera looks straight down on the centre."""
    qpos = scattered()
    image = np.column_stack([qpos[:, 1], qpos[:, 0], np.pi / 2 - qpos[:, 2], qpos[:, 4], qpos[:, 3]])
    episodes = Episodes(
        spec=make_spec(TASK),
        observation={**observe(qpos), "image.top": shown(qpos)},
        action=qpos[:, 3:].astype(np.float32),
        ends=np.array([12]),
    )
    if lazy:
        episodes = with_images(numeric(qpos), SIZE)
    np.testing.assert_array_equal(mirrored(episodes).observation["image.top"][:], shown(image))


def test_mirrored_copies_stay_lazy_and_mirroring_twice_is_the_identity() -> None:
    episodes = with_images(numeric(scattered()), SIZE)
    both = concatenate([episodes, mirrored(episodes)])
    frames = both.observation["image.top"]
    assert is_lazy(frames)
    assert frames.shape == (24, SIZE, SIZE, 3)
    twice = mirrored(mirrored(episodes)).observation["image.top"]
    np.testing.assert_array_equal(twice[:], episodes.observation["image.top"][:])


def test_drawing_goes_on_after_pickling() -> None:
    frames = DrawnRows(scattered(), SIZE)
    before = frames[2:4]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[2:4], before)
    frames.close()
    np.testing.assert_array_equal(frames[2:4], before)


def test_what_cannot_be_drawn_is_refused() -> None:
    episodes = numeric(scattered())
    with pytest.raises(DataError, match=r"the episodes hold 'image\.top' already"):
        with_images(with_images(episodes, SIZE), SIZE)
    blind = Episodes(
        spec=episodes.spec.keep(("state",)),
        observation={"state": episodes.observation["state"]},
        action=episodes.action,
        ends=episodes.ends,
    )
    with pytest.raises(DataError, match="'environment' is missing"):
        with_images(blind, SIZE)
    with pytest.raises(ConfigError, match="image_size at least 8"):
        with_images(episodes, 4)
