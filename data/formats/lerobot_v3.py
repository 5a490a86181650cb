"""LeRobotDataset v3.0, reading: many episodes per Parquet file and per video, lists as Parquet."""

from typing import Any

import numpy as np

from ..errors import DataError
from .frames import Clip
from .lerobot_info import Info, Recording
from .parquet import read_columns, to_array


def read_tables(info: Info) -> Recording:
    """All columns of all episodes, in the order of their numbers."""
    episodes = _episodes(info)
    numeric, still = info.numeric(), info.of_kind("image")
    files = dict.fromkeys((e["data/chunk_index"], e["data/file_index"]) for e in episodes)
    paths = [info.file("data", chunk_index=chunk, file_index=file) for chunk, file in files]
    tables = [read_columns(path, [*numeric, *still]) for path in paths]
    steps, lengths = sum(table.num_rows for table in tables), [int(e["length"]) for e in episodes]
    if steps != sum(lengths):
        raise DataError(
            f"the data files hold {steps} steps, meta/episodes says {sum(lengths)}; copy it again"
        )
    columns = {
        name: np.concatenate([to_array(table[name], name, info.features[name]["shape"]) for table in tables])
        for name in numeric
    }
    expected = np.repeat([e["episode_index"] for e in episodes], lengths)
    if "episode_index" in columns and not np.array_equal(columns["episode_index"], expected):
        step = int(np.argmax(columns["episode_index"] != expected))
        raise DataError(
            f"step {step} belongs to episode {columns['episode_index'][step]} by the data files "
            f"and to {expected[step]} by meta/episodes; the dataset is mixed up, fetch it again"
        )
    return Recording(
        columns=columns,
        stills={n: [i["bytes"] for table in tables for i in table[n].to_pylist()] for n in still},
        clips={name: [_clip(info, name, e) for e in episodes] for name in info.of_kind("video")},
        lengths=lengths,
        tasks=_tasks(info),
    )


def _episodes(info: Info) -> list[dict[str, Any]]:
    paths = sorted((info.root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{info.root} has no meta/episodes/*/*.parquet; copy the dataset again")
    tables = [read_columns(path) for path in paths]
    kept = [[name for name in table.column_names if not name.startswith("stats/")] for table in tables]
    rows = [r for table, names in zip(tables, kept, strict=True) for r in table.select(names).to_pylist()]
    return sorted(rows, key=lambda row: row["episode_index"])


def _clip(info: Info, name: str, episode: dict[str, Any]) -> Clip:
    place = {f"{part}_index": episode[f"videos/{name}/{part}_index"] for part in ("chunk", "file")}
    first = round(episode[f"videos/{name}/from_timestamp"] * info.fps)
    return Clip(info.file("video", video_key=name, **place), first, int(episode["length"]))


def _tasks(info: Info) -> dict[int, str]:
    table = read_columns(info.root / "meta" / "tasks.parquet")
    words = [name for name in table.column_names if name != "task_index"]
    if "task_index" not in table.column_names or not words:
        raise DataError(f"meta/tasks.parquet needs task_index and the task, has {table.column_names}")
    return dict(zip(table["task_index"].to_pylist(), table[words[0]].to_pylist(), strict=True))
