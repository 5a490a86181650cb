"""Whatever goes from one format into another and back is the same to the last bit."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError, SpecError
from sensorimotor.data.formats import FORMATS, Format, load_dataset, save_dataset
from sensorimotor.data.spec import Field

Make = Callable[..., Episodes]
Same = Callable[[Episodes, Episodes], None]
SUFFIX: dict[Format, str] = {
    "robomimic": ".hdf5",
    "zarr": ".zarr",
    "lerobot": "",
    "npz": ".npz",
    "folder": "",
}


def through(episodes: Episodes, folder: Path, *formats: Format) -> Episodes:
    for number, format in enumerate(formats):
        path = folder / f"{number}-{format}{SUFFIX[format]}"
        save_dataset(episodes, path, format=format)
        episodes = load_dataset(path, require_finite=False)
    return episodes


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_there_and_back_changes_no_bit(
    make_episodes: Make, assert_same: Same, tmp_path: Path, first: Format, second: Format
) -> None:
    episodes = make_episodes()
    assert_same(through(episodes, tmp_path, first, second, first), episodes)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_absent_stays_absent(
    make_episodes: Make, assert_same: Same, tmp_path: Path, format: Format
) -> None:
    episodes = make_episodes((1,), full=False)  # the shortest there is
    assert_same(through(episodes, tmp_path, format), episodes)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int64", "uint16", "uint64", "bool"]
)
def test_every_number_type_is_kept(
    make_episodes: Make, assert_same: Same, tmp_path: Path, format: Format, dtype: str
) -> None:
    episodes = make_episodes((2, 3), full=False)
    values = np.arange(-7, 8).reshape(5, 3).astype(dtype)
    spec = replace(episodes.spec, observation={"state": Field(shape=(3,), dtype=dtype)})
    episodes = replace(episodes, spec=spec, observation={"state": values}, extra={"other": values[:, 0]})
    assert_same(through(episodes, tmp_path, format), episodes)


@pytest.mark.parametrize("format", FORMATS)
def test_values_that_are_not_finite_are_kept_where_they_are_asked_for(
    make_episodes: Make, assert_same: Same, tmp_path: Path, format: Format
) -> None:
    episodes = make_episodes()
    episodes.action[4] = (np.nan, -np.inf)
    assert_same(through(episodes, tmp_path, format), episodes)
    with pytest.raises(DataError, match="action is not finite at episode 2, step 0"):
        load_dataset(tmp_path / f"0-{format}{SUFFIX[format]}")


@pytest.mark.parametrize("format", FORMATS)
def test_a_given_spec_is_checked_and_chooses(make_episodes: Make, tmp_path: Path, format: Format) -> None:
    episodes = make_episodes()
    path = tmp_path / f"set{SUFFIX[format]}"
    save_dataset(episodes, path, format=format)
    chosen = load_dataset(path, spec=episodes.spec.keep(("state",)))
    assert list(chosen.observation) == ["state"]
    np.testing.assert_array_equal(chosen.extra["grid"], episodes.observation["grid"])
    with pytest.raises(SpecError, match=r"control_hz differs: given spec 99, file 12\.5"):
        load_dataset(path, spec=replace(episodes.spec, control_hz=99))
    with pytest.raises(SpecError, match="action dtype differs: given spec float64, file float32"):
        load_dataset(path, spec=replace(episodes.spec, action=Field(shape=(2,), dtype="float64")))
    with pytest.raises(DataError, match=r"recorded at 12\.5 Hz, control_hz says 10"):
        load_dataset(path, control_hz=10)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_cut_file_is_an_error_that_names_it(
    make_episodes: Make, tmp_path: Path, format: Format, keep: float
) -> None:
    path = tmp_path / f"set{SUFFIX[format]}"
    save_dataset(make_episodes((30, 40)), path, format=format)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in {".npy", ".parquet"}]
    files += [path / "data" / "state" / "0.0"] if format == "zarr" else []
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(DataError, match=path.name):
            load_dataset(path, format=format)
        file.write_bytes(whole)
    load_dataset(path)


@pytest.mark.parametrize("format", ["zarr", "lerobot", "folder"])
def test_a_folder_of_something_else_is_not_replaced(
    make_episodes: Make, tmp_path: Path, format: Format
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "letter").write_text("dear")
    with pytest.raises(DataError, match="choose a new folder"):
        save_dataset(make_episodes(), tmp_path / "set", format=format)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["letter"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_error_while_writing_leaves_what_was_there(
    make_episodes: Make, assert_same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    path = tmp_path / f"set{SUFFIX[format]}"
    episodes = make_episodes()
    save_dataset(episodes, path, format=format)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sensorimotor.data.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_dataset(make_episodes((2, 2)), path, format=format)
    assert_same(load_dataset(path), episodes)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_what_was_there(
    make_episodes: Make, assert_same: Same, small_disk: Path, format: Format
) -> None:
    path = small_disk / f"set{SUFFIX[format]}"
    episodes = make_episodes(full=False)
    save_dataset(episodes, path, format=format)
    with pytest.raises(OSError, match=r"space left|write failed|requested and \d+ written"):
        save_dataset(make_episodes((3000, 3000)), path, format=format)
    assert_same(load_dataset(path), episodes)
    assert [p.name for p in small_disk.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a/b", "state", "reward", ""])
def test_an_array_name_that_cannot_be_kept_apart_is_refused(
    make_episodes: Make, tmp_path: Path, format: Format, name: str
) -> None:
    episodes = make_episodes()
    if format == "folder" and "/" not in name:
        pytest.skip("a folder keeps observations and extra arrays in different files")
    with pytest.raises(DataError, match="array name"):
        save_dataset(replace(episodes, extra={name: episodes.action}), tmp_path / "set", format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_that_is_not_json_is_refused(make_episodes: Make, tmp_path: Path, format: Format) -> None:
    episodes = replace(make_episodes(), metadata={"when": object()})
    with pytest.raises((DataError, TypeError), match="JSON"):
        save_dataset(episodes, tmp_path / "set", format=format)
    assert list(tmp_path.iterdir()) == []


def told(episodes: Episodes) -> Episodes:
    """The same with an instruction, of more than one length and alphabet, for every step."""
    texts = np.array(["push the T", "schiebe über das T", ""])[np.arange(episodes.steps) % 3]
    spec = replace(
        episodes.spec, observation={**episodes.spec.observation, "instruction": Field(shape=(), dtype="str")}
    )
    return replace(episodes, spec=spec, observation={**episodes.observation, "instruction": texts})


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_instructions_come_back_word_for_word(
    make_episodes: Make, assert_same: Same, tmp_path: Path, first: Format, second: Format
) -> None:
    episodes = told(make_episodes())
    assert_same(through(episodes, tmp_path, first, second, first), episodes)
