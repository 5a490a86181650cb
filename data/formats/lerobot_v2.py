"""LeRobotDataset v2.0 and v2.1: a Parquet file and a video per episode, lists as JSON lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .frames import Clip
from .lerobot_info import Info, Recording
from .parquet import read_columns, to_array


def read_tables(info: Info) -> Recording:
    """All columns of all episodes, in the order of their numbers."""
    episodes = sorted(_json_lines(info.root / "meta" / "episodes.jsonl"), key=lambda e: e["episode_index"])
    numeric, still = info.numeric(), info.of_kind("image")
    parts, stills, clips = [], {name: [] for name in still}, {name: [] for name in info.of_kind("video")}
    for episode in episodes:
        number, length = int(episode["episode_index"]), int(episode["length"])
        place = {"episode_index": number, "episode_chunk": number // info.chunks_size}
        path = info.file("data", **place)
        table = read_columns(path, [*numeric, *still])
        if table.num_rows != length:
            raise DataError(
                f"{path} holds {table.num_rows} steps, episodes.jsonl says {length}; copy it again"
            )
        parts.append({name: to_array(table[name], name, info.features[name]["shape"]) for name in numeric})
        for name in still:
            stills[name] += [image["bytes"] for image in table[name].to_pylist()]
        for name in clips:
            clips[name].append(Clip(info.file("video", video_key=name, **place), 0, length))
    if not parts:
        raise DataError(f"{info.root / 'meta' / 'episodes.jsonl'} lists no episode")
    tasks = {task["task_index"]: task["task"] for task in _json_lines(info.root / "meta" / "tasks.jsonl")}
    return Recording(
        columns={name: np.concatenate([part[name] for part in parts]) for name in numeric},
        stills=stills,
        clips=clips,
        lengths=[int(episode["length"]) for episode in episodes],
        tasks=tasks,
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise DataError(f"{path} is absent; copy the dataset again")
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
