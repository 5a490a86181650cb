"""Candidate plans for pushing the T: fresh pushes from any side, and variations of the plan under way.

A plan is T targets of the pusher, one per control step; candidates are (n, T, 2) in metres. Positions `qpos` are
(5,): block x, y, yaw, pusher x, y.
"""

import numpy as np
from numpy.typing import NDArray

from .push_t_geometry import OUTLINE, TIP_RADIUS, WORKSPACE, distance_to_block

Array = NDArray[np.float64]

_GAP = 0.006  # m between pusher and block where a push begins
_CLEAR = 0.122  # m from the block's centre at which the pusher can circle it
_KNOTS = 5
_PERIMETER = np.linalg.norm(np.roll(OUTLINE, -1, axis=0) - OUTLINE, axis=1)


def fresh_pushes(
    generator: np.random.Generator, qpos: Array, *, count: int, steps: int, speed: float
) -> Array:
    """Go to a random point of the outline, straight or around the block, and push inwards for a random length.

    Args:
        generator: draws edge, point, direction (0.35 rad about the normal), length (3 to 160 mm) and speed.
        qpos: (5,) present positions.
        count: n.
        steps: T.
        speed: fastest pusher motion, metres per control step.
    """
    edge = generator.choice(len(OUTLINE), count, p=_PERIMETER / _PERIMETER.sum())
    share = generator.uniform(0.05, 0.95, (count, 1))
    a, b = OUTLINE[edge], OUTLINE[(edge + 1) % len(OUTLINE)]
    along = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1)
    contact = a + share * (b - a)
    direction = _rotated(-outward, generator.normal(0.0, 0.35, count))
    length = np.exp(generator.uniform(np.log(0.003), np.log(0.16), (count, 1)))
    turn = np.full(count, qpos[2])
    begin = _rotated(contact + outward * (TIP_RADIUS + _GAP), turn)
    end = _rotated(contact + outward * TIP_RADIUS + direction * length, turn)
    approach = _approach(qpos, begin)
    push = begin[:, None] + (end - begin)[:, None] * np.linspace(0, 1, 20)[1:, None]
    path = np.concatenate([approach, push], axis=1) + qpos[:2]
    pace = speed * generator.uniform(0.6, 1.0, count)
    return _travel(path, pace[:, None] * np.arange(1, steps + 1))


def variations(generator: np.random.Generator, plan: Array, *, count: int, spread: float) -> Array:
    """The plan (T, 2) itself, then copies bent by smooth noise that grows along the plan; `spread` in metres."""
    steps = len(plan)
    knots = generator.normal(0.0, 1.0, (count, _KNOTS, 2))
    place = np.linspace(0, _KNOTS - 1, steps)
    left = np.minimum(place.astype(int), _KNOTS - 2)
    weight = (place - left)[:, None]
    bend = knots[:, left] * (1 - weight) + knots[:, left + 1] * weight
    size = spread * generator.uniform(0.1, 1.5, (count, 1, 1)) * np.linspace(0.3, 1.0, steps)[:, None]
    size[:1] = 0.0
    return plan + size * bend


def limited(plans: Array, start: Array, *, speed: float) -> Array:
    """The same plans (n, T, 2), no step longer than `speed` metres from `start` (2,) on, and inside the workspace."""
    out, last = np.empty_like(plans), np.broadcast_to(start, plans[:, 0].shape)
    edge = WORKSPACE - 0.005
    for t in range(plans.shape[1]):
        move = plans[:, t] - last
        length = np.linalg.norm(move, axis=1, keepdims=True)
        move = move * np.minimum(1.0, speed / np.maximum(length, 1e-9))
        last = out[:, t] = np.clip(last + move, -edge, edge)
    return out


def _approach(qpos: Array, begin: Array) -> Array:
    """Paths (n, 40, 2) about the block's centre from the pusher to (n, 2): straight where clear, else around."""
    share = np.linspace(0, 1, 40)
    here = qpos[3:] - qpos[:2]
    straight = here + (begin[:, None] - here) * share[:, None]
    block = np.array([0.0, 0.0, qpos[2]])
    clear = np.min(distance_to_block(block, straight), axis=1) > TIP_RADIUS + 0.002
    r0, r1 = np.linalg.norm(here), np.linalg.norm(begin, axis=1)
    a0, a1 = np.arctan2(here[1], here[0]), np.arctan2(begin[:, 1], begin[:, 0])
    turn = (a1 - a0 + np.pi) % (2 * np.pi) - np.pi
    radius = r0 + (r1[:, None] - r0) * share
    radius += (np.maximum(radius, _CLEAR) - radius) * np.clip(6 * np.minimum(share, 1 - share), 0, 1)
    angle = a0 + turn[:, None] * share
    around = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return np.where(clear[:, None, None], straight, around)


def _travel(path: Array, distance: Array) -> Array:
    """Points (n, T, 2) at the given distances (n, T) along paths (n, P, 2); the end where a path is shorter."""
    lengths = np.linalg.norm(np.diff(path, axis=1), axis=2)
    travelled = np.concatenate([np.zeros((len(path), 1)), np.cumsum(lengths, axis=1)], axis=1)
    points = [
        [np.interp(wanted, so_far, line[:, axis]) for axis in (0, 1)]
        for wanted, so_far, line in zip(distance, travelled, path, strict=True)
    ]
    return np.array(points).reshape(len(path), 2, distance.shape[1]).swapaxes(1, 2)


def _rotated(vectors: Array, angle: Array) -> Array:
    """Vectors (n, 2) turned by angles (n,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
