"""LeRobotDataset v3.0, writing: Parquet tables with one row group per episode; images as PNG, without loss.

What the layout has no place for stands in `meta/sensorimotor.json`, a file that LeRobot does not read.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..files import atomic_folder, check_replaceable
from ..instructions import INSTRUCTION, TASK_INDEX, TASKS, instructions_of, tasks_of
from .description import DESCRIPTION_KEY, Description, columns
from .frames import encode_png
from .lerobot_info import any_step, frame_indices, their_name, timestamps
from .lerobot_stats import Statistics, column_statistics, image_statistics, merge, plain
from .opening import require
from .parquet import from_array

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_FILES_PER_CHUNK = 1000
_OURS = {"action": "action", "reward": "next.reward", "terminated": "next.done"}


def write_lerobot(episodes: Episodes, path: Path | str, *, file_megabytes: int = 100) -> None:
    """Write a dataset that lerobot 0.4 opens; the folder appears whole or not at all.

    An observation `instruction` becomes the task of each step, other text is refused.

    Args:
        episodes: what to write; `image.*` of (H, W, 3) uint8 become image columns.
        path: the dataset's folder.
        file_megabytes: a data file that has grown to this size is followed by the next one.
    """
    require("pyarrow", "writing LeRobot datasets")
    path = Path(path)
    layout = _layout(episodes)
    ours = {
        "description": Description.of(episodes).to_json(),
        "columns": layout.names,
        "steps": episodes.steps,
    }
    check_replaceable(path, "meta/info.json")
    with atomic_folder(path) as root:
        (root / "meta").mkdir()
        statistics = [_statistics(layout, rows) for rows in _slices(episodes)]
        places = _write_data(root, layout, episodes, file_megabytes * 1_000_000)
        _write_episodes(root, layout, episodes, places, statistics)
        _write_tasks(root / "meta" / "tasks.parquet", layout.tasks)
        totals = {name: plain(merge([part[name] for part in statistics])) for name in layout.columns}
        _write_json(root / "meta" / "stats.json", totals)
        _write_json(root / "meta" / "info.json", _info(episodes, layout, file_megabytes))
        _write_json(root / "meta" / f"{DESCRIPTION_KEY}.json", ours)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where everything goes: our key -> column, column -> array (N, ...), which are images, the tasks."""

    names: dict[str, str]
    columns: dict[str, Array]
    images: frozenset[str]
    tasks: list[str]


def _layout(episodes: Episodes) -> _Layout:
    arrays = columns(episodes)
    if INSTRUCTION in episodes.observation:
        del arrays[INSTRUCTION]
    if text := [key for key, array in arrays.items() if array.dtype.kind == "U"]:
        raise DataError(
            f"{text[0]!r} is text, of which LeRobot keeps tasks alone; rename it `{INSTRUCTION}` or drop it"
        )
    names = {key: their_name(key) for key in episodes.observation if key in arrays}
    names |= {key: _OURS.get(key, key) for key in arrays if key not in names}
    task_index, tasks = _tasks(episodes)
    made = {
        "timestamp": timestamps(episodes.ends, episodes.spec.control_hz),
        "frame_index": frame_indices(episodes.ends),
        "episode_index": np.repeat(np.arange(len(episodes)), episodes.lengths),
        "index": np.arange(episodes.steps),
        "task_index": task_index,
    }
    if episodes.success is not None:
        made["next.success"] = np.zeros(episodes.steps, bool)
        made["next.success"][episodes.ends - 1] = episodes.success
        recorded = episodes.extra.get("next.success", made["next.success"])
        if not np.array_equal(any_step(recorded, episodes.ends), episodes.success):
            raise DataError("success and the extra array 'next.success' disagree; drop one of them")
    replaceable = ("timestamp", "task_index", "next.success")
    for column in names.values():
        if list(names.values()).count(column) > 1 or (column in made and column not in replaceable):
            raise DataError(f"column {column!r} would be written twice; rename the observation or extra key")
    stored = {column: arrays[key] for key, column in names.items()}
    return _Layout(
        names=names,
        columns={**stored, **{name: array for name, array in made.items() if name not in stored}},
        images=frozenset(
            names[key] for key in names if key in episodes.observation and _is_image(key, arrays[key])
        ),
        tasks=tasks,
    )


def _is_image(key: str, array: Array) -> bool:
    return key.startswith("image.") and array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3


def _tasks(episodes: Episodes) -> tuple[Array, list[str]]:
    """Task of every step, and what the tasks are; one unnamed task where nothing is known."""
    if told := tasks_of(episodes.observation):
        number, texts = told
        index, known = episodes.extra.get(TASK_INDEX), episodes.metadata.get(TASKS)
        if index is None:
            return number, texts
        if not known or not np.array_equal(instructions_of(known, index), episodes.observation[INSTRUCTION]):
            raise DataError(f"`{INSTRUCTION}` and the extra array {TASK_INDEX!r} disagree; drop one of them")
    known = episodes.metadata.get("tasks") or [str(episodes.metadata.get("task", "unnamed task"))]
    index = episodes.extra.get("task_index", np.zeros(episodes.steps, np.int64))
    if index.ndim != 1 or index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= len(known):
        raise DataError(
            f"task_index must count metadata['tasks'], 0..{len(known) - 1}; got up to {index.max()}"
        )
    return index, [str(task) for task in known]


def _slices(episodes: Episodes) -> list[slice]:
    return [slice(int(a), int(b)) for a, b in zip(episodes.starts, episodes.ends, strict=True)]


def _statistics(layout: _Layout, rows: slice) -> dict[str, Statistics]:
    return {
        name: (image_statistics if name in layout.images else column_statistics)(array[rows])
        for name, array in layout.columns.items()
    }


def _write_data(root: Path, layout: _Layout, episodes: Episodes, limit: int) -> list[tuple[int, int]]:
    """Write every step; returns the chunk and file of each episode."""
    parquet = require("pyarrow.parquet", "writing LeRobot datasets")
    places: list[tuple[int, int]] = []
    writer, number, path = None, -1, root
    try:
        for rows in _slices(episodes):
            table = _table(layout, rows)
            if writer is None or path.stat().st_size > limit:
                if writer is not None:
                    writer.close()
                number += 1
                chunk, file = divmod(number, _FILES_PER_CHUNK)
                path = root / _DATA.format(chunk_index=chunk, file_index=file)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=len(table))
            places.append(divmod(number, _FILES_PER_CHUNK))
    finally:
        if writer is not None:
            writer.close()
    return places


def _table(layout: _Layout, rows: slice) -> Any:
    pa = require("pyarrow", "writing LeRobot datasets")
    made = {}
    for name, array in layout.columns.items():
        if name in layout.images:
            images = [
                {"bytes": encode_png(image), "path": f"frame-{i:06d}.png"}
                for i, image in enumerate(array[rows])
            ]
            made[name] = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        else:
            made[name] = from_array(array[rows])
    return pa.table(made)


def _write_episodes(
    root: Path,
    layout: _Layout,
    episodes: Episodes,
    places: list[tuple[int, int]],
    statistics: list[dict[str, Statistics]],
) -> None:
    pa, parquet = require("pyarrow", "writing"), require("pyarrow.parquet", "writing LeRobot datasets")
    entries = []
    for number, rows in enumerate(_slices(episodes)):
        used = np.unique(layout.columns["task_index"][rows])
        entries.append(
            {
                "episode_index": number,
                "tasks": [layout.tasks[i] for i in used],
                "length": rows.stop - rows.start,
                "data/chunk_index": places[number][0],
                "data/file_index": places[number][1],
                "dataset_from_index": rows.start,
                "dataset_to_index": rows.stop,
                **{
                    f"stats/{name}/{statistic}": values
                    for name, part in statistics[number].items()
                    for statistic, values in plain(part).items()
                },
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(entries), path)


def _write_tasks(path: Path, tasks: list[str]) -> None:
    """The tasks as the index of a pandas table, where LeRobot looks for them."""
    pa, parquet = require("pyarrow", "writing"), require("pyarrow.parquet", "writing LeRobot datasets")
    index = "__index_level_0__"
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
        ],
    }
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())}
    )
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def _info(episodes: Episodes, layout: _Layout, file_megabytes: int) -> dict[str, Any]:
    rate = episodes.spec.control_hz
    return {
        "codebase_version": "v3.0",
        "robot_type": episodes.metadata.get("robot_type"),
        "total_episodes": len(episodes),
        "total_frames": episodes.steps,
        "total_tasks": len(layout.tasks),
        "chunks_size": _FILES_PER_CHUNK,
        "data_files_size_in_mb": file_megabytes,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if float(rate).is_integer() else rate,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": _DATA,
        "video_path": None,
        "features": {name: _feature(episodes, layout, name) for name in layout.columns},
    }


def _feature(episodes: Episodes, layout: _Layout, column: str) -> dict[str, Any]:
    array = layout.columns[column]
    if column in layout.images:
        return {"dtype": "image", "shape": list(array.shape[1:]), "names": ["height", "width", "channels"]}
    fields = {their_name(key): field for key, field in episodes.spec.observation.items()}
    names = (fields | {"action": episodes.spec.action})[column].names if column in {*fields, "action"} else ()
    shape = list(array.shape[1:]) if array[0].size > 1 else [1]
    return {"dtype": array.dtype.name, "shape": shape, "names": list(names) or None}


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=4))
