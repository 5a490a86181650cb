"""Zarr replay buffers: the real PushT set bit for bit, and stores that lie, hide or lose something."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.formats.zarr import read_zarr, write_zarr

pytest.importorskip("zarr", reason='needs pip install "sensorimotor[formats]"')
Make = Callable[..., Episodes]
Same = Callable[[Episodes, Episodes], None]


def test_pusht_is_the_same_from_zarr_and_npz(shared_data: Path) -> None:
    pusht = shared_data / "pusht"
    a = load_dataset(pusht / "pusht_cchi_v7_replay_lowdim.zarr.zip", control_hz=10)
    b = load_dataset(pusht / "pusht_lowdim.npz", control_hz=10)
    assert (len(a), a.steps) == (206, 25650)
    assert a.ends.tobytes() == b.ends.tobytes()
    assert a.action.tobytes() == b.action.tobytes()
    for key in ("state", "keypoint"):
        assert a.observation[key].tobytes() == b.observation[key].tobytes()
    np.testing.assert_array_equal(a.observation["n_contacts"], b.observation["n_contacts"])


def test_pusht_survives_every_way_of_writing(shared_data: Path, assert_same: Same, tmp_path: Path) -> None:
    episodes = load_dataset(shared_data / "pusht" / "pusht_cchi_v7_replay_lowdim.zarr.zip", control_hz=10)
    for name in ("a.zarr", "a.zarr.zip"):
        write_zarr(episodes, tmp_path / name)
        assert_same(read_zarr(tmp_path / name), episodes)


def test_what_we_write_has_diffusion_policys_layout(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes((3, 1, 5))
    write_zarr(episodes, tmp_path / "a.zarr")
    import zarr

    root: Any = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert root.metadata.zarr_format == 2
    np.testing.assert_array_equal(root["meta/episode_ends"][:], [3, 4, 9])
    assert all(array.shape[0] == 9 for _, array in root["data"].arrays())
    described = json.loads((tmp_path / "a.zarr" / "data" / "state" / ".zarray").read_text())
    assert described["compressor"]["id"] == "blosc"


def test_long_arrays_are_cut_into_chunks_along_time(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes((40_000,), full=False)
    write_zarr(episodes, tmp_path / "a.zarr")
    described = json.loads((tmp_path / "a.zarr" / "data" / "image.top" / ".zarray").read_text())
    assert described["chunks"] == [(1 << 20) // 60, 4, 5, 3]
    np.testing.assert_array_equal(read_zarr(tmp_path / "a.zarr").action, episodes.action)


def foreign(path: Path, **arrays: np.ndarray) -> Path:
    """A store as Diffusion Policy's tools leave it: no description, images as whole floats."""
    import zarr

    root: Any = zarr.create_group(path, zarr_format=2)
    defaults = {
        "action": np.ones((6, 2), np.float32),
        "img": np.arange(6 * 12, dtype=np.float32).reshape(6, 2, 2, 3),
    }
    for name, array in {**defaults, **arrays}.items():
        made = root.create_array(
            f"data/{name}", shape=array.shape, dtype=array.dtype, chunks=(2, *array.shape[1:])
        )
        made[:] = array
    root.create_array("meta/episode_ends", shape=(2,), dtype="int64")[:] = [2, 6]
    return path


def test_images_stored_as_whole_floats_become_bytes(tmp_path: Path) -> None:
    episodes = read_zarr(foreign(tmp_path / "a.zarr"), control_hz=10)
    assert episodes.observation["image.camera"].dtype == np.uint8
    np.testing.assert_array_equal(episodes.observation["image.camera"].ravel(), np.arange(72))
    half = np.full((6, 2, 2, 3), 0.5, np.float32)
    with pytest.raises(DataError, match=r"image.camera holds float32 that are not whole numbers 0\.\.255"):
        read_zarr(foreign(tmp_path / "b.zarr", img=half), control_hz=10)


def test_absent_chunks_are_damage_in_ours_and_a_note_elsewhere(make_episodes: Make, tmp_path: Path) -> None:
    write_zarr(make_episodes(), tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "data" / "action" / "0.0").unlink()
    with pytest.raises(DataError, match=r"\{'data/action': 1\}; every chunk was written"):
        read_zarr(tmp_path / "a.zarr")
    path = foreign(tmp_path / "b.zarr")
    (path / "data" / "action" / "1.0").unlink()
    with pytest.warns(UserWarning, match=r"absent and read as zeros: \{'data/action': 1\}"):
        episodes = read_zarr(path, control_hz=10)
    assert episodes.action[:, 0].tolist() == [1, 1, 0, 0, 1, 1]
    assert len(episodes.metadata["notes"]) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filters": [{"id": "pickle", "protocol": 5}]}, "uses the codec 'pickle'; allowed are blosc"),
        ({"compressor": {"id": "json2"}}, "uses the codec 'json2'"),
        ({"dtype": "|O", "filters": []}, r"holds \|O; arrays must hold numbers"),
        ({"dtype": [["a", "<f4"]]}, "arrays must hold numbers"),
    ],
)
def test_a_codec_that_runs_code_is_refused_before_it_can(
    make_episodes: Make, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_zarr(make_episodes(), tmp_path / "a.zarr")
    path = tmp_path / "a.zarr" / "data" / "action" / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(DataError, match=said):
        read_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["../evil", "data/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
def test_a_zip_with_a_member_outside_itself_is_refused(
    make_episodes: Make, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.zarr.zip"
    write_zarr(make_episodes(), path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(DataError, match="outside itself"):
        read_zarr(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing was extracted


def test_other_stores_are_told_what_is_missing(make_episodes: Make, tmp_path: Path) -> None:
    import zarr

    zarr.create_group(tmp_path / "v3.zarr", zarr_format=3)
    with pytest.raises(DataError, match="Zarr v3 store; write it again with zarr_format=2"):
        load_dataset(tmp_path / "v3.zarr")
    write_zarr(make_episodes(), tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / "meta")
    with pytest.raises(DataError, match="has data/<key> and meta/episode_ends"):
        read_zarr(tmp_path / "a.zarr")


def test_ends_that_do_not_fit_the_arrays_are_named(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.zarr", state=np.ones((5, 1), np.float32))
    with pytest.raises(DataError, match="state has 5 steps, the episode ends say 6"):
        read_zarr(path, control_hz=10)
