"""Pictures: what is where, the same every time, and clear refusals."""

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.sim.push_t import load_model
from sensorimotor.sim.render import Renderer, make_context

HALF = 0.27  # m, half of what the camera sees


def scene(pusher: tuple[float, float] = (0.2, -0.2), block: tuple[float, float] = (-0.12, 0.1)) -> np.ndarray:
    return np.array([*block, 0.3, *pusher])


def pixel(frame: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour at a point of the table; rows count from the top, y from the bottom."""
    size = len(frame)
    column, row = (x + HALF) / (2 * HALF) * size, (HALF - y) / (2 * HALF) * size
    return frame[int(row), int(column)].astype(int)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load_model(), size=96)


@pytest.mark.parametrize("pusher", [(0.2, -0.2), (-0.2, -0.15), (0.0, 0.22)])
def test_the_pusher_is_drawn_where_it_is(renderer: Renderer, pusher: tuple[float, float]) -> None:
    red, _, blue = pixel(renderer.frame(scene(pusher)), *pusher)
    assert red > 200
    assert blue < 100
    empty = pixel(renderer.frame(scene((0.2, 0.2))), *pusher)
    assert empty.min() > 200


def test_the_goal_is_drawn_at_its_pose_under_the_block(renderer: Renderer) -> None:
    frame = renderer.frame(scene())
    for along in (-0.03, 0.0, 0.05):  # bar, centre of mass, stem
        red, green, blue = pixel(frame, along / np.sqrt(2), along / np.sqrt(2))
        assert green > max(red, blue)
    hidden = pixel(renderer.frame(scene(block=(0.0, 0.0))), 0.0, 0.0)
    assert hidden.max() < 180


def test_the_block_is_drawn_where_it_is(renderer: Renderer) -> None:
    assert pixel(renderer.frame(scene()), -0.12, 0.1).max() < 180


def test_the_same_world_gives_the_same_picture(renderer: Renderer) -> None:
    first = renderer.frame(scene())
    other = renderer.frame(scene((0.0, 0.2)))
    np.testing.assert_array_equal(renderer.frame(scene()), first)
    assert not np.array_equal(first, other)
    again = Renderer(load_model(), size=96)
    np.testing.assert_array_equal(again.frame(scene()), first)
    again.close()


@pytest.mark.parametrize("size", [32, 250])
def test_frames_have_the_size_asked_for(size: int) -> None:
    made = Renderer(load_model(), size=size)
    frame = made.frame(scene())
    assert (frame.shape, frame.dtype) == ((size, size, 3), np.uint8)
    made.close()
    made.close()
    with pytest.raises(ConfigError, match="closed"):
        made.frame(scene())


def test_unknown_cameras_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="'top'"):
        Renderer(load_model(), size=32, camera="side")
    with pytest.raises(ConfigError, match="8 to"):
        Renderer(load_model(), size=100_000)


def test_a_graphics_library_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(ConfigError, match=r"nonsense: .*MUJOCO_GL"):
        make_context(32)
