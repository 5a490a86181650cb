"""The T's shape, its distance and its overlap with the goal, against other ways to compute them."""

import mujoco
import numpy as np
import pytest

from sensorimotor.sim.push_t import load_model
from sensorimotor.sim.push_t_geometry import (
    AREA,
    BOXES,
    GOAL,
    OUTLINE,
    SQUARE,
    TIP_RADIUS,
    WORKSPACE,
    coverage,
    distance_to_block,
    transform,
)


def poses(count: int, *, spread: float = 0.05, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.column_stack([generator.normal(0, spread, (count, 2)), generator.uniform(-7, 7, count)])


def inside_t(points: np.ndarray) -> np.ndarray:
    """Whether points (P, 2) of the block's frame lie in the T."""
    x, y = points[:, :1], points[:, 1:]
    within = (x >= BOXES[:, 0]) & (x <= BOXES[:, 1]) & (y >= BOXES[:, 2]) & (y <= BOXES[:, 3])
    return np.logical_or(within[:, 0], within[:, 1])


def grid(count: int) -> np.ndarray:
    """Centres of count x count cells over a square that holds the T."""
    line = ((np.arange(count) + 0.5) / count - 0.5) * 8 * SQUARE
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def mirrored(pose: np.ndarray) -> np.ndarray:
    return np.column_stack([pose[:, 1], pose[:, 0], np.pi / 2 - pose[:, 2]])


def test_the_numbers_are_those_of_the_model() -> None:
    model = load_model()
    for name, (x0, x1, y0, y1) in zip(("bar", "stem"), BOXES, strict=True):
        geom = model.geom(name)
        np.testing.assert_allclose(geom.pos[:2], [(x0 + x1) / 2, (y0 + y1) / 2], atol=1e-12)
        np.testing.assert_allclose(geom.size[:2], [(x1 - x0) / 2, (y1 - y0) / 2], atol=1e-12)
    assert model.geom("tip").size[0] == TIP_RADIUS
    np.testing.assert_allclose(model.actuator_ctrlrange, [[-WORKSPACE, WORKSPACE]] * 2)
    goal = model.body("goal")
    np.testing.assert_allclose(goal.pos[:2], GOAL[:2])
    np.testing.assert_allclose(2 * np.arctan2(goal.quat[3], goal.quat[0]), GOAL[2])


def test_the_frame_sits_at_the_centre_of_mass() -> None:
    model = load_model()
    np.testing.assert_allclose(model.body("block").ipos, 0.0, atol=1e-6)
    sizes = (BOXES[:, 1] - BOXES[:, 0]) * (BOXES[:, 3] - BOXES[:, 2])
    np.testing.assert_allclose(sizes @ (BOXES[:, 0] + BOXES[:, 1]), 0.0, atol=1e-12)
    assert sizes.sum() == pytest.approx(AREA)


def test_the_drags_belong_together() -> None:
    """Rotational over linear drag is, roughly, the squared mean distance of the T's area from its centre."""
    model = load_model()
    points = grid(400)
    mean_distance = np.linalg.norm(points[inside_t(points)], axis=1).mean()
    linear, _, turning = model.dof_damping[:3]
    assert np.sqrt(turning / linear) == pytest.approx(mean_distance, rel=0.03)


def test_full_coverage_at_the_goal_and_after_whole_turns() -> None:
    turned = GOAL + np.array([[0, 0, 0], [0, 0, 2 * np.pi], [0, 0, -6 * np.pi]])
    np.testing.assert_allclose(coverage(turned), 1.0, atol=1e-9)


def test_coverage_does_not_depend_on_what_is_beside_it() -> None:
    many = poses(50)
    np.testing.assert_array_equal([coverage(pose[None])[0] for pose in many], coverage(many))


def test_no_coverage_out_of_reach() -> None:
    far = poses(100)
    far[:, :2] += 0.5
    np.testing.assert_array_equal(coverage(far), 0.0)


@pytest.mark.parametrize(
    ("shift", "squares"),
    [
        ((0, 0), 7),
        ((1, 0), 3),  # along the stem: the bar covers the stem's first square, the stem its last two
        ((0, 1), 3),  # along the bar: three of its four squares remain, the stem covers nothing
        ((-1, 0), 3),
        ((4, 0), 0),
        ((0, 4), 0),
    ],
)
def test_shifts_by_whole_squares_can_be_counted_by_hand(shift: tuple[int, int], squares: int) -> None:
    along, across = np.array(shift) * SQUARE
    direction = np.array([np.cos(GOAL[2]), np.sin(GOAL[2])])
    pose = GOAL.copy()
    pose[:2] += along * direction + across * np.array([-direction[1], direction[0]])
    assert coverage(pose[None])[0] == pytest.approx(squares / 7, abs=1e-9)


def test_coverage_agrees_with_counting_points() -> None:
    points = grid(500)
    c, s = np.cos(GOAL[2]), np.sin(GOAL[2])
    for pose in poses(5, spread=0.03):
        in_goal = (transform(pose, points) - GOAL[:2]) @ np.array([[c, -s], [s, c]])
        shared = (inside_t(points) & inside_t(in_goal)).sum() / inside_t(points).sum()
        assert coverage(pose[None])[0] == pytest.approx(shared, abs=5e-3)


def test_coverage_agrees_with_polygon_clipping() -> None:
    geometry = pytest.importorskip("shapely.geometry")
    goal = geometry.Polygon(transform(GOAL, OUTLINE))
    many = poses(500)
    many[:4, 2] = GOAL[2] + np.arange(4) * np.pi / 2  # edges parallel to the goal's
    many[4:8, 2] = GOAL[2] + np.array([1e-12, -1e-10, 1e-8, -1e-6])  # and nearly so
    expected = [geometry.Polygon(o).intersection(goal).area / goal.area for o in transform(many, OUTLINE)]
    np.testing.assert_allclose(coverage(many), expected, atol=1e-8)


def test_exchanging_x_and_y_changes_no_coverage_and_reverses_the_corners() -> None:
    many = poses(200)
    np.testing.assert_allclose(coverage(mirrored(many)), coverage(many), atol=1e-9)
    corners = transform(many, OUTLINE)
    np.testing.assert_allclose(transform(mirrored(many), OUTLINE), corners[:, ::-1, ::-1], atol=1e-12)


def test_distance_agrees_with_the_simulator() -> None:
    """Where tip and block touch, the model's contact depth is the distance minus the tip's radius."""
    model = load_model()
    data = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    generator = np.random.default_rng(2)
    seen = 0
    for pose in poses(300, spread=0.02):
        point = pose[:2] + generator.uniform(-0.12, 0.12, 2)
        data.qpos[:] = [*pose, *point]
        mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
        distance = float(distance_to_block(pose, point))
        assert (data.ncon > 0) == (distance < TIP_RADIUS)
        if data.ncon and distance > 0:
            assert min(data.contact.dist) == pytest.approx(distance - TIP_RADIUS, abs=1e-9)
            seen += 1
    assert seen > 10
