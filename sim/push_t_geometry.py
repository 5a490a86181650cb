"""Where the T is: its outline, how much of the goal it covers, and the task's mirror symmetry.

Poses are (..., 3): x, y in metres and yaw in radians of the block's frame, which sits at the centre of mass with x
along the stem. The numbers repeat those of `assets/push_t.xml`; a test keeps them equal.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SQUARE = 0.035  # m, the side of the seven squares that make the T
WORKSPACE = 0.25  # m, half the side of the square the pusher moves in
TIP_RADIUS = 0.015  # m
GOAL = np.array([0.0, 0.0, np.pi / 4])

_BACK = -19 / 14 * SQUARE  # the bar's outer face, measured from the centre of mass
_NECK = _BACK + SQUARE  # where stem and bar meet
_FRONT = _NECK + 3 * SQUARE  # the stem's end
_WIDE, _NARROW = 2 * SQUARE, SQUARE / 2

# Two boxes that share an edge: x from, x to, y from, y to.
BOXES = np.array([[_BACK, _NECK, -_WIDE, _WIDE], [_NECK, _FRONT, -_NARROW, _NARROW]])
AREA = 7 * SQUARE**2

# Counter-clockwise; the order is its own mirror image about the stem.
OUTLINE = np.array(
    [
        [_BACK, -_WIDE],
        [_NECK, -_WIDE],
        [_NECK, -_NARROW],
        [_FRONT, -_NARROW],
        [_FRONT, _NARROW],
        [_NECK, _NARROW],
        [_NECK, _WIDE],
        [_BACK, _WIDE],
    ]
)


def transform(pose: Array, points: Array) -> Array:
    """Points (P, 2) of the block's frame in the world, (..., P, 2)."""
    cos, sin = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
    x = pose[..., 0, None] + cos * points[:, 0] - sin * points[:, 1]
    y = pose[..., 1, None] + sin * points[:, 0] + cos * points[:, 1]
    return np.stack([x, y], axis=-1)


def poses_of(corners: Array) -> Array:
    """Poses (N, 3) of blocks whose corners (N, 8, 2) are given: the inverse of `transform(pose, OUTLINE)`.

    The pose is the one that takes the outline to the corners with the least squared error, so that rounding to single
    precision moves it by some 1e-8 m.
    """
    outline = OUTLINE - OUTLINE.mean(axis=0)
    seen = corners - corners.mean(axis=1, keepdims=True)
    crossed = outline[:, 0] * seen[..., 1] - outline[:, 1] * seen[..., 0]
    yaw = np.arctan2(crossed.sum(axis=1), (outline * seen).sum(axis=(1, 2)))
    x, y = OUTLINE.mean(axis=0)
    turned = np.stack([np.cos(yaw) * x - np.sin(yaw) * y, np.sin(yaw) * x + np.cos(yaw) * y], axis=1)
    return np.column_stack([corners.mean(axis=1) - turned, yaw])


def distance_to_block(pose: Array, point: Array) -> Array:
    """Distance in metres from points (..., 2) to the block's surface at poses (..., 3); zero inside."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    dx, dy = point[..., 0] - pose[..., 0], point[..., 1] - pose[..., 1]
    x, y = (cos * dx + sin * dy)[..., None], (cos * dy - sin * dx)[..., None]
    beyond_x = np.maximum(np.maximum(BOXES[:, 0] - x, x - BOXES[:, 1]), 0.0)
    beyond_y = np.maximum(np.maximum(BOXES[:, 2] - y, y - BOXES[:, 3]), 0.0)
    return np.hypot(beyond_x, beyond_y).min(axis=-1)


def coverage(pose: Array, goal: Array = GOAL) -> Array:
    """Share of a goal's area that blocks at these poses (N, 3) cover, (N,), to within 1e-8.

    The goal is one pose (3,) for all, or one for each (N, 3).

    The area common to a polygon and an axis-aligned box is the boundary integral of -y dx over the polygon's outline,
    with x restricted and y clamped to the box. In the goal's frame the goal is two such boxes. Arrays are
    (box, edge, world), so that the longest axis is contiguous.
    """
    x, y = _outline_in_goal_frame(pose, goal)
    x_next, y_next = np.roll(x, -1, axis=0), np.roll(y, -1, axis=0)
    run = x_next - x
    slope = (y_next - y) / np.where(run == 0.0, 1.0, run)
    x_low, x_high, y_low, y_high = BOXES.T[:, :, None, None]
    begin, end = np.minimum(np.maximum(x, x_low), x_high), np.minimum(np.maximum(x_next, x_low), x_high)
    height = _mean_clamped(y + (begin - x) * slope, y + (end - x) * slope, y_low, y_high)
    parts = ((begin - end) * height).reshape(-1, len(pose))
    area = np.cumsum(parts, axis=0)[-1]  # adds in the same order whatever N, which `sum` does not
    return np.clip(area / AREA, 0.0, 1.0)


def _outline_in_goal_frame(pose: Array, goal: Array) -> tuple[Array, Array]:
    """Coordinates x and y of the eight corners as the goal sees them, each (8, N)."""
    cos, sin = np.cos(goal[..., 2]), np.sin(goal[..., 2])
    dx, dy = pose[:, 0] - goal[..., 0], pose[:, 1] - goal[..., 1]
    turn = pose[:, 2] - goal[..., 2]
    c, s = np.cos(turn), np.sin(turn)
    along, across = OUTLINE[:, 0, None], OUTLINE[:, 1, None]
    return cos * dx + sin * dy + c * along - s * across, cos * dy - sin * dx + s * along + c * across


def _mean_clamped(a: Array, b: Array, low: Array, high: Array) -> Array:
    """Mean of y clamped to [low, high] while y goes from a to b at constant speed."""
    rise = b - a
    level = np.abs(rise) < 1e-9  # m; here the quotient below would lose its digits
    u, v = np.minimum(np.maximum(a, low), high), np.minimum(np.maximum(b, low), high)
    # u (a - u / 2) is the antiderivative of the clamped value.
    quotient = (v * (b - 0.5 * v) - u * (a - 0.5 * u)) / np.where(level, 1.0, rise)
    return np.where(level, 0.5 * (u + v), quotient)
