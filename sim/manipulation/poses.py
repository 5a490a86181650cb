"""Rotations as robosuite writes them in observations: unit quaternions (x, y, z, w)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def multiply(a: Array, b: Array) -> Array:
    """The rotation b followed by a, quaternions (..., 4)."""
    (x, y, z, w), (i, j, k, r) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack(
        [
            w * i + x * r + y * k - z * j,
            w * j - x * k + y * r + z * i,
            w * k + x * j - y * i + z * r,
            w * r - x * i - y * j - z * k,
        ],
        axis=-1,
    )


def inverse(q: Array) -> Array:
    """The rotation back, (..., 4)."""
    return q * np.array([-1.0, -1.0, -1.0, 1.0], dtype=q.dtype)


def rotate(q: Array, point: Array) -> Array:
    """Points (..., 3) turned by quaternions (..., 4)."""
    axis, w = q[..., :3], q[..., 3:]
    across = 2.0 * np.cross(axis, point)
    return point + w * across + np.cross(axis, across)


def rotation_vector(q: Array) -> Array:
    """Axis times angle in rad of quaternions (..., 4), the shorter way round."""
    q = np.where(q[..., 3:] < 0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., 3:])
    return q[..., :3] * np.where(sine < 1e-9, 2.0, angle / np.maximum(sine, 1e-9))


def about_z(angle: Array | float) -> Array:
    """Quaternions (..., 4) that turn by an angle in rad about the vertical."""
    half = np.asarray(angle) / 2
    zero = np.zeros_like(half)
    return np.stack([zero, zero, np.sin(half), np.cos(half)], axis=-1)


def yaw(q: Array) -> Array:
    """(...) rad, how far quaternions (..., 4) turn the x axis about the vertical."""
    ahead = rotate(q, np.broadcast_to(np.array([1.0, 0.0, 0.0]), (*q.shape[:-1], 3)))
    return np.arctan2(ahead[..., 1], ahead[..., 0])
