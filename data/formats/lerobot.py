"""LeRobotDataset, without the lerobot package: v2.0, v2.1 and v3.0 are read, v3.0 is written.

Names: `observation.state` is `state`, `observation.environment_state` is `environment`, `observation.images.X` is
`image.X`, `next.reward` and `next.done` are reward and termination. Tasks stand in `metadata["tasks"]`, and which one
each step belongs to in the extra array `task_index`. Indices and timestamps that follow from the rate are not kept.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..spec import Spec
from . import lerobot_v2, lerobot_v3
from .description import DESCRIPTION_KEY, Description, agreed_rate, assemble
from .foreign import Choice, derive
from .frames import decode_clips, decode_png
from .lerobot_info import INDEX_COLUMNS, Info, Recording, element_names, our_key, timestamps
from .lerobot_writer import write_lerobot
from .opening import note, reading

__all__ = ["read_lerobot", "write_lerobot"]

_ROLES = {"action": "action", "next.reward": "reward", "next.done": "terminated"}


def read_lerobot(
    path: Path | str,
    *,
    spec: Spec | None = None,
    control_hz: float | None = None,
    observation: Choice | None = None,
    images: bool = True,
    image_size: tuple[int, int] | None = None,
) -> Episodes:
    """Read a LeRobot dataset from its folder, the one that holds `meta/info.json`.

    Args:
        path: the folder.
        spec: what it must hold; checked.
        control_hz: only to check against the recorded rate.
        observation: for datasets that are not ours; our observation keys and the names for them here.
        images: decode cameras; all frames are held in memory, so leave them out of large sets you need no images of.
        image_size: (H, W) to scale video frames to while decoding.
    """
    path = Path(path)
    with reading(path, "LeRobot dataset"):
        info = Info.of(path)
        match info.version:
            case "2.0" | "2.1":
                recording = lerobot_v2.read_tables(info)
            case "3.0":
                recording = lerobot_v3.read_tables(info)
            case _:
                raise DataError(
                    f"layout v{info.version} is not known, v2.0, v2.1 and v3.0 are; convert it with lerobot"
                )
        described = path / "meta" / f"{DESCRIPTION_KEY}.json"
        ends = np.cumsum(recording.lengths)
        if described.exists():
            return _ours(described, recording, ends, spec, control_hz, observation)
        metadata: dict[str, Any] = {"robot_type": info.robot_type} if info.robot_type else {}
        cameras = _decode(info, recording, image_size, metadata) if images else {}
        return _foreign(info, recording, cameras, metadata, spec, control_hz, observation)


def _ours(
    described: Path,
    recording: Recording,
    ends: Array,
    spec: Spec | None,
    control_hz: float | None,
    observation: Choice | None,
) -> Episodes:
    """A dataset that `write_lerobot` made."""
    values = json.loads(described.read_text())
    description = Description.from_json(values["description"])
    steps = int(ends[-1])
    shapes = {key: field.shape for key, field in description.spec.observation.items()}
    shapes |= {"action": description.spec.action.shape, "reward": (), "terminated": (), **description.extra}
    stored = {**recording.columns, **{name: decode_png(s) for name, s in recording.stills.items()}}
    arrays = {key: stored[column].reshape(steps, *shapes[key]) for key, column in values["columns"].items()}
    success = None if values["success"] is None else np.array(values["success"], dtype=bool)
    return assemble(description, arrays, ends, success, spec=spec, control_hz=control_hz, choice=observation)


def _decode(
    info: Info, recording: Recording, size: tuple[int, int] | None, metadata: dict[str, Any]
) -> dict[str, Array]:
    """Camera frames by column; what cannot be had is left out with a note."""
    cameras: dict[str, Array] = {name: decode_png(stills) for name, stills in recording.stills.items()}
    for name, clips in recording.clips.items():
        absent = sorted({clip.path for clip in clips if not clip.path.exists()})
        details = {**info.features[name], **info.features[name].get("info", {})}
        if details.get("video.is_depth_map") or details.get("is_depth_map"):
            note(
                metadata, f"{name} is a depth video, which is not read; {our_key(name, 'video')} is left out"
            )
        elif absent:
            files = len({clip.path for clip in clips})
            note(
                metadata,
                f"{len(absent)} of {files} videos of {name} are absent (the first is {absent[0].name}); "
                f"{our_key(name, 'video')} is left out",
            )
        else:
            cameras[name] = decode_clips(clips, size)
    return cameras


def _foreign(
    info: Info,
    recording: Recording,
    cameras: dict[str, Array],
    metadata: dict[str, Any],
    spec: Spec | None,
    control_hz: float | None,
    choice: Choice | None,
) -> Episodes:
    columns, ends = recording.columns, np.cumsum(recording.lengths)
    if words := info.of_kind("string", "language", "audio"):
        note(metadata, f"columns that do not hold numbers are left out: {words}")
    steps = int(ends[-1])
    seen = {
        name: array.reshape(steps, *info.features[name]["shape"])
        for name, array in columns.items()
        if name.startswith("observation.")
    }
    names = {
        our_key(name, ""): element_names(info.features[name]) for name in (*seen, "action") if name in columns
    }
    seen |= cameras
    keys = {name: our_key(name, info.features[name]["dtype"]) for name in seen}
    order = sorted(recording.tasks)
    extra = {
        name: array
        for name, array in columns.items()
        if name not in seen and name not in _ROLES and name not in INDEX_COLUMNS
    }
    extra |= {f"column.{name}": extra.pop(name) for name in list(extra) if name in keys.values()}
    if "task_index" in columns:
        extra["task_index"] = np.searchsorted(order, columns["task_index"])
    timestamp = columns.get("timestamp")
    if timestamp is not None and not np.array_equal(timestamp, timestamps(ends, info.fps)):
        extra["timestamp"] = timestamp
    return derive(
        {keys[name]: array for name, array in seen.items()},
        {ours: columns[theirs] for theirs, ours in _ROLES.items() if theirs in columns},
        extra,
        ends,
        spec=spec,
        control_hz=agreed_rate(info.fps, control_hz),
        choice=choice,
        success=_success(columns, ends),
        names=names,
        metadata={**metadata, "tasks": [recording.tasks[number] for number in order]},
    )


def _success(columns: dict[str, Array], ends: Array) -> Array | None:
    """Whether any step of an episode was marked a success."""
    if "next.success" not in columns:
        return None
    starts = np.concatenate([[0], ends[:-1]])
    return np.logical_or.reduceat(columns["next.success"].astype(bool), starts)
