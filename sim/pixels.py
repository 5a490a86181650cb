"""Camera frames for `push_t` recordings that hold numbers only: what is seen follows from where everything is."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.episodes import Episodes
from ..data.errors import DataError
from ..data.lazy import LazyArray, Recent, as_array
from .push_t import PushTConfig, make_spec
from .push_t_geometry import poses_of
from .push_t_goals import Goals, load_model

if TYPE_CHECKING:
    from .render import Renderer

CAMERA = "image.top"
_KEPT = 512  # frames, more than an episode: a file that also holds the next frames then has each drawn once


def positions(episodes: Episodes) -> NDArray[np.float64]:
    """(N, 5) block x, y, yaw and pusher x, y of every step, from `state` and the block's corners in `environment`.

    Raises:
        DataError: if the episodes do not hold both.
    """
    missing = [key for key in ("state", "environment") if key not in episodes.observation]
    if missing:
        raise DataError(
            f"pictures are drawn from `state` and `environment`, and {missing[0]!r} is missing; "
            f"the episodes hold {sorted(episodes.observation)}"
        )
    corners = episodes.observation["environment"].astype(np.float64).reshape(episodes.steps, -1, 2)
    return np.column_stack([poses_of(corners), episodes.observation["state"].astype(np.float64)])


class DrawnRows(LazyArray):
    """Frames of `push_t` seen from above, drawn when they are asked for (about 2 ms each without a GPU)."""

    def __init__(
        self,
        qpos: NDArray[np.float64],
        size: int,
        progress: Callable[[int, int], None] | None = None,
        goals: Goals = "centre",
    ) -> None:
        """Draw nothing yet.

        Args:
            qpos: (N, 5) positions.
            size: px, height and width.
            progress: called with (frames drawn, N); not taken along to other processes.
            goals: which are drawn.
        """
        super().__init__((len(qpos), size, size, 3), np.dtype(np.uint8))
        self.qpos, self._progress = qpos, progress
        self.goals: Goals = goals
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._renderer: Renderer | None = None
        self._recent, self._drawn = Recent(_KEPT), 0

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Drawn frames."""
        if self._process != os.getpid():
            self._parents = self._renderer  # not released here: its context belongs to the parent
            self._forget()
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            frame = self._recent.get(row)
            if frame is None:
                frame = self._draw(row)
                self._recent.put(row, frame)
            found[place] = frame
        return found

    def _draw(self, row: int) -> NDArray[np.uint8]:
        if self._renderer is None:
            from .render import Renderer

            self._renderer = Renderer(load_model(self.goals), size=self.shape[1])
        self._drawn += 1
        if self._progress:
            self._progress(min(self._drawn, len(self)), len(self))
        return self._renderer.frame(self.qpos[row])

    def close(self) -> None:
        """Release the graphics context; it is made again when frames are asked for."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        """What is to be drawn, and nothing of the graphics."""
        return {"qpos": self.qpos, "goals": self.goals, "shape": self.shape, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of `__getstate__`."""
        for name, value in {**state, "_progress": None}.items():
            setattr(self, name, value)
        self._forget()


def with_images(
    episodes: Episodes,
    size: int,
    *,
    goals: Goals = "centre",
    progress: Callable[[int, int], None] | None = None,
) -> Episodes:
    """The same `push_t` episodes with `image.top`, as the task itself would have shown it.

    Frames are drawn when they are asked for; `save_dataset(with_images(episodes, 96), path)` draws each once and holds
    a few hundred in memory.

    Args:
        episodes: with `state` and `environment`.
        size: px, height and width.
        goals: which are drawn.
        progress: called with (frames drawn, frames).

    Raises:
        DataError: if the episodes do not hold what is drawn, or hold frames already.
    """
    if CAMERA in episodes.observation:
        raise DataError(f"the episodes hold {CAMERA!r} already; use them as they are")
    camera = make_spec(PushTConfig(images=True, image_size=size)).observation[CAMERA]
    drawn = DrawnRows(positions(episodes), size, progress, goals)
    return replace(
        episodes,
        spec=replace(episodes.spec, observation={**episodes.spec.observation, CAMERA: camera}),
        observation={**episodes.observation, CAMERA: as_array(drawn)},
    )
