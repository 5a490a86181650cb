"""LeRobot datasets: the real v2.1 set, v3.0 as lerobot reads it, videos there and absent, and spoiled folders."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.formats.lerobot import read_lerobot, write_lerobot
from sensorimotor.data.formats.lerobot_info import element_names, our_key, their_name
from sensorimotor.data.lazy import is_lazy

pa = pytest.importorskip("pyarrow", reason='needs pip install "sensorimotor[formats]"')
parquet = pytest.importorskip("pyarrow.parquet")
Make = Callable[..., Episodes]
Same = Callable[[Episodes, Episodes], None]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_bottle_opens_without_its_videos_and_says_so(shared_data: Path) -> None:
    with pytest.warns(UserWarning, match=r"100 of 100 videos of observation\.images\.cam_high are absent"):
        episodes = load_dataset(shared_data / "g1_bottle")
    assert (len(episodes), episodes.steps, episodes.spec.control_hz) == (100, 35965, 30)
    assert (episodes.lengths.min(), episodes.lengths.max()) == (221, 583)
    assert list(episodes.observation) == ["state"]
    assert episodes.spec.action.names[0] == "kLeftShoulderPitch"
    assert len(episodes.spec.action.names) == 26
    assert episodes.metadata["tasks"] == ["Pick up the yellow bottle on the table."]
    assert "image.cam_high is left out" in episodes.metadata["notes"][0]
    # The recorder's own statistics of episode 0 agree with what was read.
    line = (shared_data / "g1_bottle" / "meta" / "episodes_stats.jsonl").read_text().splitlines()[0]
    recorded = json.loads(line)["stats"]["action"]
    np.testing.assert_allclose(episodes.action[: episodes.ends[0]].mean(0), recorded["mean"], rtol=1e-5)
    np.testing.assert_array_equal(episodes.action[: episodes.ends[0]].min(0), np.float32(recorded["min"]))


def test_the_bottle_goes_from_v2_to_v3_unchanged(
    shared_data: Path, assert_same: Same, tmp_path: Path
) -> None:
    episodes = read_lerobot(shared_data / "g1_bottle", images=False)
    assert "notes" not in episodes.metadata
    write_lerobot(episodes, tmp_path / "set")
    assert_same(read_lerobot(tmp_path / "set"), episodes)
    (tmp_path / "set" / "meta" / "sensorimotor.json").unlink()
    assert_same(read_lerobot(tmp_path / "set"), episodes)  # what v3.0 itself says is all there was


def test_v3_has_the_tables_that_lerobot_looks_for(make_episodes: Make, tmp_path: Path) -> None:
    episodes = replace(make_episodes((3, 1, 5)), metadata={"tasks": ["push", "pull"], "robot_type": "arm"})
    task = np.repeat([0, 1, 0], episodes.lengths)
    write_lerobot(replace(episodes, extra={"task_index": task}), tmp_path)
    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    totals = {key: info[f"total_{key}"] for key in ("episodes", "frames", "tasks")}
    assert totals == {"episodes": 3, "frames": 9, "tasks": 2}
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v3.0", "arm", 12.5)
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert info["features"]["observation.images.top"]["dtype"] == "image"
    data = parquet.read_table(tmp_path / "data" / "chunk-000" / "file-000.parquet").to_pydict()
    assert data["index"] == list(range(9))
    assert data["frame_index"] == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    assert data["episode_index"] == [0, 0, 0, 1, 2, 2, 2, 2, 2]
    np.testing.assert_array_equal(
        np.float32(data["timestamp"]), np.float32(data["frame_index"]) / np.float32(12.5)
    )
    rows = parquet.read_table(tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pydict()
    assert (rows["dataset_from_index"], rows["dataset_to_index"]) == ([0, 3, 4], [3, 4, 9])
    assert rows["tasks"] == [["push"], ["pull"], ["push"]]
    action = episodes.action[4:].astype(np.float64)
    np.testing.assert_allclose(rows["stats/action/mean"][2], action.mean(0))
    np.testing.assert_allclose(rows["stats/action/q50"][2], np.median(action, axis=0))
    stats = json.loads((tmp_path / "meta" / "stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["std"], episodes.action.astype(np.float64).std(0))
    assert np.shape(stats["observation.images.top"]["mean"]) == (3, 1, 1)
    assert stats["action"]["count"] == [9]


def test_data_goes_on_in_further_files_and_folders(
    make_episodes: Make, assert_same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorimotor.data.formats.lerobot_writer._FILES_PER_CHUNK", 2)
    episodes = make_episodes((3, 1, 5))
    write_lerobot(episodes, tmp_path / "set", file_megabytes=0)
    files = sorted(
        p.relative_to(tmp_path / "set" / "data").as_posix() for p in (tmp_path / "set").glob("data/*/*")
    )
    assert files == [f"chunk-00{c}/file-00{f}.parquet" for c, f in ((0, 0), (0, 1), (1, 0))]
    assert_same(read_lerobot(tmp_path / "set"), episodes)


def test_without_our_own_notes_a_set_reads_as_any_other(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes((3, 1, 5))
    write_lerobot(episodes, tmp_path)
    (tmp_path / "meta" / "sensorimotor.json").unlink()
    foreign = read_lerobot(tmp_path)
    for key in ("state", "grid", "image.top"):
        np.testing.assert_array_equal(foreign.observation[key], episodes.observation[key])
    np.testing.assert_array_equal(
        foreign.observation["environment"][:, 0], episodes.observation["environment"]
    )
    assert foreign.spec.observation["state"].names == ("a", "b", "c")
    for name in ("reward", "terminated", "success"):
        np.testing.assert_array_equal(getattr(foreign, name), getattr(episodes, name))
    assert set(foreign.extra) == {"states", "column", "flag", "task_index"}
    assert foreign.metadata["tasks"] == ["push"]


def test_success_marked_before_the_end_is_kept_as_it_was(make_episodes: Make, tmp_path: Path) -> None:
    when = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0], dtype=bool)
    episodes = replace(make_episodes((3, 1, 5)), extra={"next.success": when})
    write_lerobot(episodes, tmp_path / "set")
    (tmp_path / "set" / "meta" / "sensorimotor.json").unlink()
    foreign = read_lerobot(tmp_path / "set")
    assert foreign.success is not None
    assert foreign.success.tolist() == [True, False, True]
    np.testing.assert_array_equal(foreign.extra["next.success"], when)
    with pytest.raises(DataError, match="disagree"):
        write_lerobot(replace(episodes, success=np.array([False, False, True])), tmp_path / "other")


def v2(path: Path, *, shape: tuple[int, int] = (16, 32), videos: bool = True) -> tuple[Path, np.ndarray]:
    """A v2.1 dataset of two episodes and a camera, and its frames; tasks and episodes have gaps in their numbers."""
    import imageio.v3 as iio

    lengths, numbers = (4, 3), (2, 10)
    frames = np.random.default_rng(0).integers(0, 256, (7, *shape, 3), dtype=np.uint8)
    video = {"dtype": "video", "shape": [*shape, 3], "names": ["height", "width", "channel"]}
    number = {"dtype": "int64", "shape": [1], "names": None}
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "action": {"dtype": "float32", "shape": [1], "names": ["a"]},
        "observation.images.wrist": video,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "task_index": number,
        "words": {"dtype": "string", "shape": [1], "names": None},
    }
    (path / "meta").mkdir(parents=True)
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "chunks_size": 5,
        "robot_type": "arm",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (path / "meta" / "info.json").write_text(json.dumps(info))
    rows = [{"episode_index": n, "length": k} for n, k in zip(numbers, lengths, strict=True)]
    (path / "meta" / "episodes.jsonl").write_text("\n".join(json.dumps(row) for row in reversed(rows)))
    tasks = [{"task_index": 7, "task": "seven"}, {"task_index": 3, "task": "three"}]
    (path / "meta" / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in tasks))
    start = 0
    for episode, length in zip(numbers, lengths, strict=True):
        steps = np.arange(start, start + length)
        table = {
            "observation.state": [[float(s), -float(s)] for s in steps],
            "action": steps.astype(np.float32),
            "timestamp": (np.arange(length) / 10).astype(np.float32),
            "task_index": [7 if episode == 2 else 3] * length,
            "words": ["go"] * length,
        }
        data = path / "data" / f"chunk-{episode // 5:03d}" / f"episode_{episode:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        vector = pa.array(table["observation.state"], pa.list_(pa.float32()))
        parquet.write_table(pa.table({**table, "observation.state": vector}), data)
        if videos:
            folder = path / "videos" / f"chunk-{episode // 5:03d}" / "observation.images.wrist"
            folder.mkdir(parents=True, exist_ok=True)
            write_video(iio, folder / f"episode_{episode:06d}.mp4", frames[start : start + length])
        start += length
    return path, frames


def write_video(iio: Any, path: Path, frames: np.ndarray) -> None:
    """Without loss, so that frames can be compared exactly."""
    lossless = {"codec": "libx264rgb", "pixelformat": "rgb24", "output_params": ["-crf", "0"]}
    iio.imwrite(path, frames, fps=10, plugin="FFMPEG", macro_block_size=1, **lossless)


@pytest.mark.filterwarnings("ignore:columns that do not hold numbers")
def test_v2_with_videos_gaps_and_words(tmp_path: Path) -> None:
    path, frames = v2(tmp_path / "set")
    episodes = read_lerobot(path)
    assert episodes.lengths.tolist() == [4, 3]
    np.testing.assert_array_equal(episodes.observation["image.wrist"], frames)
    np.testing.assert_array_equal(episodes.observation["state"][:, 1], -np.arange(7))
    assert episodes.action.shape == (7, 1)
    assert episodes.spec.observation["state"].names == ("a", "b")
    assert episodes.metadata["tasks"] == ["three", "seven"]
    assert episodes.extra["task_index"].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert "timestamp" not in episodes.extra
    assert "['words']" in episodes.metadata["notes"][0]


@pytest.mark.filterwarnings("ignore:columns that do not hold numbers")
def test_v2_leaves_frames_in_their_videos_until_they_are_asked_for(tmp_path: Path) -> None:
    path, frames = v2(tmp_path / "set")
    episodes = load_dataset(path, lazy_images=True)
    assert is_lazy(episodes.observation["image.wrist"])
    np.testing.assert_array_equal(
        episodes.select([1, 0]).observation["image.wrist"][:], frames[[4, 5, 6, 0, 1, 2, 3]]
    )


@pytest.mark.filterwarnings("ignore:columns that do not hold numbers")
def test_frames_are_scaled_while_decoding(tmp_path: Path) -> None:
    path, frames = v2(tmp_path / "set")
    image = read_lerobot(path, image_size=(8, 16)).observation["image.wrist"]
    assert image.shape == (7, 8, 16, 3)
    assert image.mean() == pytest.approx(frames.mean(), abs=3)


@pytest.mark.filterwarnings("ignore:columns that do not hold numbers")
def test_a_video_that_is_too_short_or_absent(tmp_path: Path) -> None:
    import imageio.v3 as iio

    path, frames = v2(tmp_path / "set")
    video = path / "videos" / "chunk-002" / "observation.images.wrist" / "episode_000010.mp4"
    write_video(iio, video, frames[:2])
    with pytest.raises(DataError, match=r"ends after 2 frames, 3 are needed.*images=False"):
        read_lerobot(path)
    video.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"episode_000010\.mp4"):
        read_lerobot(path)
    video.unlink()
    with pytest.warns(UserWarning, match=r"1 of 2 videos of observation\.images\.wrist are absent"):
        assert "image.wrist" not in read_lerobot(path).observation


def test_v3_finds_each_episodes_frames_in_a_shared_video(make_episodes: Make, tmp_path: Path) -> None:
    import imageio.v3 as iio

    episodes = replace(make_episodes((3, 2), full=False))
    episodes = replace(episodes, spec=replace(episodes.spec, control_hz=10.0))
    write_lerobot(episodes, tmp_path)
    (tmp_path / "meta" / "sensorimotor.json").unlink()
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 32, 3), dtype=np.uint8)
    folder = tmp_path / "videos" / "observation.image" / "chunk-000"
    folder.mkdir(parents=True)
    write_video(iio, folder / "file-000.mp4", frames)  # frame 3 belongs to no episode
    info = tmp_path / "meta" / "info.json"
    feature = {"dtype": "video", "shape": [3, 16, 32], "names": ["channel", "height", "width"]}
    features = {**json.loads(info.read_text())["features"], "observation.image": feature}
    edit(
        info,
        features=features,
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )
    table_path = tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(table_path)
    for name, values in (("chunk_index", [0, 0]), ("file_index", [0, 0]), ("from_timestamp", [0.0, 0.4])):
        table = table.append_column(f"videos/observation.image/{name}", pa.array(values))
    parquet.write_table(table, table_path)
    image = read_lerobot(tmp_path).observation["image.camera"]
    np.testing.assert_array_equal(image, frames[[0, 1, 2, 4, 5]])
    lazy = read_lerobot(tmp_path, lazy_images=True).observation["image.camera"]
    assert is_lazy(lazy)
    np.testing.assert_array_equal(lazy[[4, 0, 3]], frames[[5, 0, 4]])


def break_order(path: Path) -> None:
    file = path / "data" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(pa.concat_tables([table.slice(4), table.slice(0, 4)]), file)


def drop_rows(path: Path) -> None:
    file = path / "data" / "chunk-000" / "file-000.parquet"
    parquet.write_table(parquet.read_table(file).slice(0, 8), file)


def empty_value(path: Path) -> None:
    file = path / "data" / "chunk-000" / "file-000.parquet"
    table = parquet.read_table(file)
    values = [None, *table["next.reward"].to_pylist()[1:]]
    parquet.write_table(
        table.set_column(table.column_names.index("next.reward"), "next.reward", [values]), file
    )


def lose_column(path: Path) -> None:
    file = path / "data" / "chunk-000" / "file-000.parquet"
    parquet.write_table(parquet.read_table(file).drop_columns(["action"]), file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (break_order, "step 0 belongs to episode 2 by the data files and to 0 by meta/episodes"),
        (drop_rows, "hold 8 steps, meta/episodes says 9"),
        (empty_value, "'next.reward' has 1 empty values"),
        (lose_column, "has no column 'action'"),
        (lambda p: (p / "data" / "chunk-000" / "file-000.parquet").unlink(), r"file-000\.parquet is absent"),
        (lambda p: shutil.rmtree(p / "meta" / "episodes"), "no meta/episodes"),
        (lambda p: (p / "meta" / "tasks.parquet").unlink(), r"tasks\.parquet is absent"),
        (lambda p: edit(p / "meta" / "info.json", codebase_version="v1.6"), "layout v1.6 is not known"),
        (lambda p: edit(p / "meta" / "info.json", data_path="../{chunk_index}"), "outside the dataset"),
        (lambda p: edit(p / "meta" / "info.json", data_path="/etc/{chunk_index}"), "outside the dataset"),
        (lambda p: (p / "meta" / "info.json").write_text("{"), "not a readable LeRobot dataset"),
        (lambda p: (p / "meta" / "info.json").write_text("{}"), "codebase_version"),
    ],
)
def test_a_spoiled_folder_says_what_is_wrong(
    make_episodes: Make, tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    write_lerobot(make_episodes((3, 1, 5)), tmp_path / "set")
    spoil(tmp_path / "set")
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / "set")


@pytest.mark.parametrize("key", ["state", "environment", "image.top", "image.wrist_left", "gripper"])
def test_names_go_there_and_back(key: str) -> None:
    assert our_key(their_name(key), "image" if key.startswith("image.") else "float32") == key


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "y"], ("x", "y")),
        ([["x", "y"]], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        ({"y": 1, "x": 0}, ("x", "y")),
        (["motors"], ()),
        (None, ()),
    ],
)
def test_element_names_in_every_form_in_use(names: Any, expected: tuple[str, ...]) -> None:
    assert element_names({"shape": [2], "names": names}) == expected


ASK = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("a/b", root=sys.argv[1])
items = [dataset[i] for i in range(len(dataset))]
numbers = {k: np.stack([i[k].numpy() for i in items]).tolist() for k in items[0] if hasattr(items[0][k], "numpy")}
chunk = LeRobotDataset("a/b", root=sys.argv[1], delta_timestamps={"action": [0.0, 0.1]})[2]["action"].tolist()
answer = {"fps": dataset.fps, "episodes": dataset.num_episodes, "tasks": [i["task"] for i in items]}
print(json.dumps({**answer, "chunk": chunk, "numbers": numbers}))
"""


def test_lerobot_reads_what_we_write(make_episodes: Make, tmp_path: Path) -> None:
    python = os.environ.get("SENSORIMOTOR_LEROBOT_PYTHON")
    if not python:
        pytest.skip("set SENSORIMOTOR_LEROBOT_PYTHON to a Python that has lerobot 0.4")
    episodes = make_episodes((3, 1, 5))
    task = np.repeat([0, 1, 0], episodes.lengths)
    episodes = replace(
        episodes,
        spec=replace(episodes.spec, control_hz=10.0),
        extra={**episodes.extra, "task_index": task},
        metadata={"tasks": ["push", "pull"]},
    )
    write_lerobot(episodes, tmp_path / "set")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [python, "-c", ASK, str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["fps"], answer["episodes"]) == (10, 3)
    assert answer["tasks"] == [["push", "pull"][i] for i in task]
    numbers = {key: np.array(values) for key, values in answer["numbers"].items()}
    np.testing.assert_array_equal(numbers["action"].astype(np.float32), episodes.action)
    np.testing.assert_array_equal(numbers["observation.grid"], episodes.observation["grid"])
    np.testing.assert_array_equal(
        numbers["observation.state"].astype(np.float32), episodes.observation["state"]
    )
    np.testing.assert_array_equal(numbers["next.done"], episodes.terminated)
    frames = np.round(numbers["observation.images.top"] * 255).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(frames, episodes.observation["image.top"])
    np.testing.assert_array_equal(
        np.float32(answer["chunk"]), episodes.action[[2, 2]]
    )  # the episode ends there
