"""The mirror images of `push_t` recordings: as many demonstrations again, for nothing.

The T is symmetric about its stem, and its corners are listed so that those of a mirrored block come in the reverse
order. The camera looks straight down on the centre of the table, so the picture of a mirrored world is the mirrored
picture, pixel by pixel.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ..data.episodes import Array, Episodes
from ..data.errors import DataError
from ..data.instructions import INSTRUCTION
from ..data.lazy import map_rows
from .pixels import CAMERA
from .push_t_goals import INSTRUCTIONS

_Flips = Mapping[str, Callable[[Array], Array]]  # a function of rows for every observation, and for `action`


def mirrored(episodes: Episodes) -> Episodes:
    """The same `push_t` episodes seen in a mirror that maps the task to itself.

    With one goal, at 45 degrees in the centre, x and y are exchanged. With two goals, left and right change places,
    and so do the instructions.

    Raises:
        DataError: for observations whose mirror image is not known.
    """
    flips = _SIDEWAYS if INSTRUCTION in episodes.observation else _DIAGONAL
    unknown = sorted(set(episodes.observation) - set(flips))
    if unknown or "state" not in episodes.observation:
        raise DataError(
            f"only the observations {sorted(set(flips) - {'action'})} can be mirrored, "
            f"got {sorted(episodes.observation)}"
        )
    return replace(
        episodes,
        observation={key: map_rows(array, flips[key]) for key, array in episodes.observation.items()},
        action=map_rows(episodes.action, flips["action"]),
    )


def _exchanged(points: Array) -> Array:
    return points[:, ::-1]


def _exchanged_corners(corners: Array) -> Array:
    return corners.reshape(len(corners), -1, 2)[:, ::-1, ::-1].reshape(corners.shape)


def _exchanged_frames(frames: Array) -> Array:
    """Rows count down and columns to the right, against y and along x: exchanged, both also turn round."""
    return np.ascontiguousarray(frames.transpose(0, 2, 1, 3)[:, ::-1, ::-1])


def _reflected(points: Array) -> Array:
    return points * np.array([-1, 1], dtype=points.dtype)


def _reflected_corners(corners: Array) -> Array:
    points = corners.reshape(len(corners), -1, 2)[:, ::-1]
    return _reflected(points).reshape(corners.shape)


def _reflected_frames(frames: Array) -> Array:
    return np.ascontiguousarray(frames[:, :, ::-1])


def _other_goal(texts: Array) -> Array:
    """What the mirrored worlds are told."""
    strange = sorted(set(texts.tolist()) - set(INSTRUCTIONS))
    if strange:
        raise DataError(
            f"the mirror image of {strange[0]!r} is not known; only {list(INSTRUCTIONS)} are, use data.mirror=false"
        )
    left, right = INSTRUCTIONS
    return np.where(texts == left, right, left)


_DIAGONAL: _Flips = {
    "state": _exchanged,
    "environment": _exchanged_corners,
    CAMERA: _exchanged_frames,
    "action": _exchanged,
}
_SIDEWAYS: _Flips = {
    "state": _reflected,
    "environment": _reflected_corners,
    CAMERA: _reflected_frames,
    "action": _reflected,
    INSTRUCTION: _other_goal,
}
