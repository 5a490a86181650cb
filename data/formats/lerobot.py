"""LeRobotDataset, without the lerobot package: v2.0, v2.1 and v3.0 are read, v3.0 is written.

Names: `observation.state` is `state`, `observation.environment_state` is `environment`, `observation.images.X` is
`image.X`, `next.reward` and `next.done` are reward and termination. Tasks stand in `metadata["tasks"]`, and which one
each step belongs to in the extra array `task_index`. Indices and timestamps that follow from the rate are not kept.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..instructions import INSTRUCTION, TASK_INDEX, instructions_of
from ..lazy import as_array, is_lazy
from ..spec import Spec
from . import lerobot_v2, lerobot_v3
from .description import DESCRIPTION_KEY, Description, agreed_rate, assemble
from .foreign import Choice, derive
from .frames import PngRows, VideoRows, decode_clips, decode_png
from .lerobot_info import INDEX_COLUMNS, Info, Recording, any_step, element_names, our_key, timestamps
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
    lazy_images: bool = False,
) -> Episodes:
    """Read a LeRobot dataset from its folder, the one that holds `meta/info.json`.

    Args:
        path: the folder.
        spec: what it must hold; checked.
        control_hz: only to check against the recorded rate.
        observation: for datasets that are not ours; our observation keys and the names for them here.
        images: read cameras.
        image_size: (H, W) to scale video frames to while decoding.
        lazy_images: decode frames when they are needed; otherwise all are held in memory. Frames of a video come fast
            only in order: to train on them, convert the dataset to HDF5 first.
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
        metadata: dict[str, Any] = {"robot_type": info.robot_type} if info.robot_type else {}
        described = path / "meta" / f"{DESCRIPTION_KEY}.json"
        if described.exists():
            ours = json.loads(described.read_text())
            if ours["steps"] == sum(recording.lengths):
                return _ours(ours, recording, spec, control_hz, observation, lazy_images)
            note(metadata, f"{path} was changed by another program, so units and bounds are not read from it")
        cameras = _decode(info, recording, image_size, metadata, lazy_images) if images else {}
        return _foreign(info, recording, cameras, metadata, spec, control_hz, observation)


def _ours(
    ours: dict[str, Any],
    recording: Recording,
    spec: Spec | None,
    control_hz: float | None,
    observation: Choice | None,
    lazy: bool,
) -> Episodes:
    """A dataset that `write_lerobot` made, and nobody changed since."""
    description, ends = Description.from_json(ours["description"]), np.cumsum(recording.lengths)
    shapes = {key: field.shape for key, field in description.spec.observation.items()}
    shapes |= {"action": description.spec.action.shape, "reward": (), "terminated": (), **description.extra}
    stored = {**recording.columns, **{name: _stills(s, lazy) for name, s in recording.stills.items()}}
    arrays = {key: stored[column] for key, column in ours["columns"].items()}
    arrays = {
        key: array if is_lazy(array) else array.reshape(ends[-1], *shapes[key])
        for key, array in arrays.items()
    }
    if INSTRUCTION in shapes and INSTRUCTION not in arrays:
        tasks = [recording.tasks[number] for number in sorted(recording.tasks)]
        arrays[INSTRUCTION] = instructions_of(tasks, recording.columns[TASK_INDEX])
    return assemble(
        description,
        arrays,
        ends,
        _success(recording.columns, ends),
        spec=spec,
        control_hz=control_hz,
        choice=observation,
    )


def _stills(images: Sequence[bytes], lazy: bool) -> Array:
    return as_array(PngRows(images)) if lazy else decode_png(images)


def _decode(
    info: Info, recording: Recording, size: tuple[int, int] | None, metadata: dict[str, Any], lazy: bool
) -> dict[str, Array]:
    """Camera frames by column; what cannot be had is left out with a note."""
    cameras: dict[str, Array] = {name: _stills(stills, lazy) for name, stills in recording.stills.items()}
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
            cameras[name] = as_array(VideoRows(clips, size)) if lazy else decode_clips(clips, size)
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
    observed = [name for name in columns if name.startswith("observation.")]
    names = {our_key(n, ""): element_names(info.features[n]) for n in (*observed, "action") if n in columns}
    found = {our_key(n, ""): columns[n].reshape(ends[-1], *info.features[n]["shape"]) for n in observed}
    found |= {our_key(n, "image"): frames for n, frames in cameras.items()}
    order = sorted(recording.tasks)
    return derive(
        found,
        {ours: columns[theirs] for theirs, ours in _ROLES.items() if theirs in columns},
        _extra(columns, ends, found, order, info.fps),
        ends,
        spec=spec,
        control_hz=agreed_rate(info.fps, control_hz),
        choice=choice,
        success=_success(columns, ends),
        names=names,
        metadata={**metadata, "tasks": [recording.tasks[number] for number in order]},
    )


def _extra(
    columns: Mapping[str, Array], ends: Array, found: Mapping[str, Array], order: list[int], fps: float
) -> dict[str, Array]:
    """What is neither observed nor derivable: tasks, odd timestamps, and columns that only this dataset has."""
    extra: dict[str, Array] = {}
    for name, array in columns.items():
        if name == "task_index":
            extra[name] = np.searchsorted(order, array)  # counts the sorted tasks
        elif name == "timestamp":
            if not np.array_equal(array, timestamps(ends, fps)):
                extra[name] = array
        elif name == "next.success":
            if not np.array_equal(np.flatnonzero(array), ends[any_step(array, ends)] - 1):
                extra[name] = array  # says when, not only whether
        elif not name.startswith("observation.") and name not in (*_ROLES, *INDEX_COLUMNS):
            extra[f"column.{name}" if name in found else name] = array
    return extra


def _success(columns: dict[str, Array], ends: Array) -> Array | None:
    return any_step(columns["next.success"], ends) if "next.success" in columns else None
