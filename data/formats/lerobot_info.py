"""`meta/info.json` of a LeRobot dataset: rate, features, and their names here and there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from ..episodes import Array
from ..errors import DataError
from .frames import Clip

INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_NAMES = {"observation.state": "state", "observation.environment_state": "environment"}
_IMAGES = "observation.images."


@dataclass(frozen=True, kw_only=True)
class Info:
    """What `meta/info.json` says.

    Attributes:
        root: the dataset's folder.
        version: of the layout, `2.0`, `2.1` or `3.0`.
        fps: control steps per second.
        features: column -> {dtype, shape, names, ...}.
        paths: templates of the data and video files.
        chunks_size: episodes (2.x) or files (3.0) per folder.
        robot_type: name of the robot, or None.
    """

    root: Path
    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    paths: Mapping[str, str | None]
    chunks_size: int
    robot_type: str | None

    @classmethod
    def of(cls, root: Path) -> Self:
        """Read it."""
        values = json.loads((root / "meta" / "info.json").read_text())
        return cls(
            root=root,
            version=str(values["codebase_version"]).removeprefix("v"),
            fps=float(values["fps"]),
            features=values["features"],
            paths={kind: values.get(f"{kind}_path") for kind in ("data", "video")},
            chunks_size=int(values.get("chunks_size", 1000)),
            robot_type=values.get("robot_type"),
        )

    def file(self, kind: str, **numbers: Any) -> Path:
        """A data or video file by the template of its kind."""
        template = self.paths[kind]
        if not template:
            raise DataError(f"info.json has no {kind}_path, and features that need it")
        relative = PurePosixPath(template.format(**numbers))
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(f"info.json names the {kind} file {relative}, outside the dataset")
        return self.root / relative

    def of_kind(self, *dtypes: str) -> list[str]:
        """Columns of these types."""
        return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]

    def numeric(self) -> list[str]:
        """Columns that hold numbers."""
        words = {*self.of_kind("image", "video", "string", "language", "audio")}
        return [name for name in self.features if name not in words]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A dataset's tables, whatever the version of their layout.

    Attributes:
        columns: numeric columns, (N, ...).
        stills: image columns, N encoded images each.
        clips: video columns, a clip per episode.
        lengths: steps per episode.
        tasks: `task_index` -> what was asked of the robot.
    """

    columns: dict[str, Array]
    stills: dict[str, list[bytes]]
    clips: dict[str, list[Clip]]
    lengths: list[int]
    tasks: dict[int, str]


def our_key(feature: str, dtype: str) -> str:
    """Our name of an observation: `state`, `environment`, `image.<camera>`, or what follows `observation.`."""
    if dtype in ("image", "video"):
        camera = feature.removeprefix(_IMAGES).removeprefix("observation.")
        return "image.camera" if camera == "image" else f"image.{camera}"
    return _NAMES.get(feature, feature.removeprefix("observation."))


def their_name(key: str) -> str:
    """LeRobot's name of one of our observations: the inverse of `our_key`."""
    if key.startswith("image."):
        return _IMAGES + key.removeprefix("image.")
    return {ours: theirs for theirs, ours in _NAMES.items()}.get(key, f"observation.{key}")


def element_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """A name per element, from any of the forms in use; empty where they do not fit the shape.

    Seen in the wild: a list, a list in a list, {"motors": list}, {name: index}, and one word for all.
    """
    names = feature.get("names")
    if isinstance(names, Mapping):
        counted = all(isinstance(value, int) for value in names.values())
        names = (
            [name for name, _ in sorted(names.items(), key=lambda n: n[1])] if counted else [*names.values()]
        )
    flat: list[str] = []
    pending = list(names) if isinstance(names, list) else []
    while pending:
        first = pending.pop(0)
        if isinstance(first, list):
            pending = [*first, *pending]
        else:
            flat.append(str(first))
    return tuple(flat) if flat and len(flat) == feature["shape"][-1] else ()


def frame_indices(ends: Array) -> Array:
    """(N,) number of each step in its episode."""
    lengths = np.diff(ends, prepend=0)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


def timestamps(ends: Array, fps: float) -> Array:
    """(N,) float32 seconds since the start of each episode."""
    return (frame_indices(ends) / fps).astype(np.float32)


def any_step(flags: Array, ends: Array) -> Array:
    """(M,) whether any step of each episode is marked."""
    return np.logical_or.reduceat(flags.astype(bool).reshape(len(flags)), ends - np.diff(ends, prepend=0))
