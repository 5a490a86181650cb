"""What a file is, is decided by its content; a pickle is refused with a way out."""

import builtins
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats import FORMATS, Format, detect_format, load_dataset, save_dataset

Make = Callable[..., Episodes]
PICKLE = b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94."


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_is_known_under_any_name(make_episodes: Make, tmp_path: Path, format: Format) -> None:
    save_dataset(make_episodes(), tmp_path / "nameless", format=format)
    assert detect_format(tmp_path / "nameless") == format


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.hdf5", "robomimic"),
        ("a.h5", "robomimic"),
        ("a.zarr", "zarr"),
        ("a.zarr.zip", "zarr"),
        ("a.npz", "npz"),
        ("a", "folder"),
    ],
)
def test_the_suffix_chooses_what_is_written(
    make_episodes: Make, tmp_path: Path, name: str, format: Format
) -> None:
    save_dataset(make_episodes(), tmp_path / name)
    assert detect_format(tmp_path / name) == format
    assert (tmp_path / name).is_dir() == (name in {"a.zarr", "a"})


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"action": torch.zeros(3)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pkl", PICKLE), ("a.dat", PICKLE), ("a.pickle", b"(dp0\n."), ("a.pt", torch_file())],
)
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is a pickle, and loading one runs.*numpy\.savez"):
        load_dataset(tmp_path / name)


def test_nothing_and_nonsense_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing at"):
        load_dataset(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="no known format; known are robomimic, zarr, lerobot, npz, folder"):
        load_dataset(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no known format"):
        load_dataset(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(DataError, match="no known format"):
        load_dataset(tmp_path / "a.zip")


def test_a_table_of_a_dataset_points_to_its_folder(make_episodes: Make, tmp_path: Path) -> None:
    save_dataset(make_episodes(), tmp_path / "set", format="lerobot")
    with pytest.raises(DataError, match=r"folder, which holds meta/info\.json"):
        load_dataset(tmp_path / "set" / "data" / "chunk-000" / "file-000.parquet")


def test_a_wrong_word_names_the_right_ones(make_episodes: Make, tmp_path: Path) -> None:
    wrong: Any = "robomimik"
    with pytest.raises(DataError, match="did you mean 'robomimic'"):
        load_dataset(tmp_path, format=wrong)
    with pytest.raises(DataError, match=r"\.hdf5: robomimic"):
        save_dataset(make_episodes(), tmp_path / "a.mat")
    save_dataset(make_episodes(), tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"filter_key.*not one of the npz reader's"):
        load_dataset(tmp_path / "a.npz", filter_key="train")


@pytest.mark.parametrize(("format", "package"), [("zarr", "zarr"), ("lerobot", "pyarrow")])
def test_an_absent_package_names_the_extra_that_brings_it(
    make_episodes: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format, package: str
) -> None:
    save_dataset(make_episodes(), tmp_path / "set", format=format)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", without)
    for act in (load_dataset, lambda path: save_dataset(make_episodes(), path, format=format)):
        with pytest.raises(DataError, match=rf'needs the package .{package}.*"sensorimotor\[formats\]"'):
            act(tmp_path / "set")


def test_a_foreign_set_says_what_it_needs(tmp_path: Path) -> None:
    arrays = {"state": np.zeros((4, 2)), "episode_ends": np.array([4])}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=r"no array is named action or actions; it holds \['state'\]"):
        load_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **arrays, action=np.zeros((4, 1)))
    with pytest.raises(DataError, match="pass control_hz"):
        load_dataset(tmp_path / "a.npz")
    assert load_dataset(tmp_path / "a.npz", control_hz=5).spec.control_hz == 5
