"""robomimic HDF5: the layout, foreign files, filters, links, and robomimic itself reading what we write."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError, SpecError
from sensorimotor.data.formats.robomimic import read_robomimic, write_robomimic
from sensorimotor.data.spec import Field, Spec

Make = Callable[..., Episodes]
Same = Callable[[Episodes, Episodes], None]


def foreign(path: Path, count: int = 12, **env_kwargs: Any) -> Path:
    """A file as robosuite's tools leave it: demonstration i has i + 1 steps, all numbers are i."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": env_kwargs})
        for i in range(count):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = i + 1
            demo["actions"] = np.full((i + 1, 7), i, ">f8")  # big-endian, as some machines write
            demo["rewards"] = np.zeros(i + 1)
            demo["dones"] = np.arange(i + 1) == i
            demo["states"] = np.full((i + 1, 5), i, float)
            for group, shift in (("obs", 0), ("next_obs", 1)):
                demo[f"{group}/eef_pos"] = np.arange(i + 1, dtype=np.float32)[:, None] * [1, 1, 1] + shift
                demo[f"{group}/gripper"] = np.full((i + 1, 2), i, np.float32)
            demo["action_dict/gripper"] = np.full((i + 1, 1), i, np.float32)
        file["mask/train"] = np.array([b"demo_11", b"demo_2"])
    return path


def test_what_we_write_has_robomimics_layout(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes((3, 1, 5))
    write_robomimic(episodes, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        data: Any = file["data"]
        assert data.attrs["total"] == 9
        assert set(json.loads(data.attrs["env_args"])) == {"env_name", "type", "env_kwargs"}
        assert [data[f"demo_{i}"].attrs["num_samples"] for i in range(3)] == [3, 1, 5]
        np.testing.assert_array_equal(data["demo_2/actions"], episodes.action[4:])
        state = episodes.observation["state"][4:]
        np.testing.assert_array_equal(data["demo_2/obs/state"], state)
        np.testing.assert_array_equal(data["demo_2/next_obs/state"], state[[1, 2, 3, 4, 4]])
        np.testing.assert_array_equal(data["demo_0/dones"], [0, 0, 1])


def test_unknown_rewards_and_ends_are_filled_in_for_robomimic_only(
    make_episodes: Make, tmp_path: Path
) -> None:
    write_robomimic(make_episodes((3, 2), full=False), tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/dones"], [0, 0, 1])
        np.testing.assert_array_equal(file["data/demo_0/rewards"], [0, 0, 0])
        assert json.loads(str(file["data"].attrs["env_args"]))["env_kwargs"] == {"control_freq": 12.5}
    read = read_robomimic(tmp_path / "a.hdf5")
    assert read.reward is None
    assert read.terminated is None


def test_compression_changes_the_size_only(make_episodes: Make, assert_same: Same, tmp_path: Path) -> None:
    episodes = make_episodes((400,), full=False)
    episodes = replace(episodes, extra={"zeros": np.zeros((400, 50))})
    write_robomimic(episodes, tmp_path / "plain")
    write_robomimic(episodes, tmp_path / "small", compression="gzip")
    for name in ("plain", "small"):
        assert_same(read_robomimic(tmp_path / name), episodes)
    assert (tmp_path / "small").stat().st_size < 0.7 * (tmp_path / "plain").stat().st_size


def test_a_foreign_file_is_read_in_numeric_order(tmp_path: Path) -> None:
    episodes = read_robomimic(foreign(tmp_path / "a.hdf5", control_freq=20))
    assert episodes.lengths.tolist() == list(range(1, 13))  # demo_10 after demo_9, not after demo_1
    assert episodes.spec.control_hz == 20
    assert episodes.action.dtype == np.dtype("<f8")
    np.testing.assert_array_equal(episodes.action[episodes.starts, 0], np.arange(12))
    assert set(episodes.observation) == {"eef_pos", "gripper"}
    assert episodes.metadata["env_args"]["env_name"] == "Lift"
    assert episodes.terminated is not None
    np.testing.assert_array_equal(np.flatnonzero(episodes.terminated), episodes.ends - 1)


def test_next_observations_are_kept_where_they_say_something_new(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", control_freq=20)
    extra = read_robomimic(path).extra
    assert "next_obs.gripper" not in extra  # the same as one step later
    np.testing.assert_array_equal(extra["next_obs.eef_pos"][:3, 0], [1, 1, 2])
    assert not [
        key for key in read_robomimic(path, next_observation=False).extra if key.startswith("next_obs")
    ]


def test_a_foreign_file_survives_the_way_through_ours(assert_same: Same, tmp_path: Path) -> None:
    episodes = read_robomimic(foreign(tmp_path / "a.hdf5", control_freq=20))
    write_robomimic(episodes, tmp_path / "b.hdf5")
    assert_same(read_robomimic(tmp_path / "b.hdf5"), episodes)
    with h5py.File(tmp_path / "a.hdf5") as a, h5py.File(tmp_path / "b.hdf5") as b:
        names: list[str] = []
        a.visit(names.append)
        for name in names:
            if isinstance(a[name], h5py.Dataset) and not name.startswith("mask"):
                np.testing.assert_array_equal(b[name], a[name], err_msg=name)


def test_filters_choose_and_survive_selection(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", control_freq=20)
    assert read_robomimic(path, filter_key="train").lengths.tolist() == [3, 12]
    episodes = read_robomimic(path).select([11, 0])
    write_robomimic(episodes, tmp_path / "b.hdf5")
    assert read_robomimic(tmp_path / "b.hdf5", filter_key="train").lengths.tolist() == [12]
    with pytest.raises(DataError, match="no filter 'trainn'; did you mean 'train'"):
        read_robomimic(path, filter_key="trainn")


def test_observations_are_chosen_renamed_and_joined(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", control_freq=20)
    episodes = read_robomimic(path, observation={"state": ("eef_pos", "gripper")})
    assert episodes.spec.observation["state"].shape == (5,)
    np.testing.assert_array_equal(episodes.observation["state"][-1], [11, 11, 11, 11, 11])
    with pytest.raises(DataError, match="'state' asks for 'eef'; did you mean 'eef_pos'"):
        read_robomimic(path, observation={"state": "eef"})


def test_a_rate_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="pass control_hz"):
        read_robomimic(path)
    assert read_robomimic(path, control_hz=20).spec.control_hz == 20
    with pytest.raises(DataError, match="recorded at 15 Hz, control_hz says 20"):
        read_robomimic(foreign(tmp_path / "b.hdf5", control_freq=15), control_hz=20)


def test_a_given_spec_must_be_what_the_file_holds(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.hdf5", control_freq=20)
    spec = Spec(
        observation={"gripper": Field(shape=(2,), unit="m")},
        action=Field(shape=(7,), dtype="float64"),
        control_hz=20,
    )
    assert read_robomimic(path, spec=spec).spec == spec
    with pytest.raises(DataError, match=r"action is float64.*the spec says float32"):
        read_robomimic(path, spec=replace(spec, action=Field(shape=(7,))))
    with pytest.raises(SpecError, match="needs observation 'state'; allowed: eef_pos, gripper"):
        read_robomimic(path, spec=replace(spec, observation={"state": Field(shape=(3,))}))


def set_link(file: h5py.File, outside: Path) -> None:
    file["data/demo_0/obs/secret"] = h5py.ExternalLink(str(outside), "/secret")


def set_soft_link(file: h5py.File, outside: Path) -> None:
    del file["data/demo_1"]
    file["data/demo_1"] = h5py.ExternalLink(str(outside), "/")


def set_external(file: h5py.File, outside: Path) -> None:
    group: Any = file["data/demo_0/obs"]
    group.create_dataset("secret", (1, 4), "u1", external=[(str(outside), 0, 4)])


def set_virtual(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout((1, 4), "u1")
    layout[0] = h5py.VirtualSource(str(outside), "secret", (4,))
    group: Any = file["data/demo_0/obs"]
    group.create_virtual_dataset("secret", layout)


@pytest.mark.parametrize("trap", [set_link, set_soft_link, set_external, set_virtual])
def test_a_file_cannot_read_another_file_through_us(
    tmp_path: Path, trap: Callable[[h5py.File, Path], None]
) -> None:
    outside = tmp_path / "outside.hdf5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.arange(4, dtype=np.uint8)
    path = foreign(tmp_path / "a.hdf5", control_freq=20)
    with h5py.File(path, "a") as file:
        trap(file, outside)
    with pytest.raises(DataError, match="points outside the file"):
        read_robomimic(path)


def spoil(path: Path, change: Callable[[Any], None]) -> Path:
    with h5py.File(foreign(path, control_freq=20), "a") as file:
        change(file)
    return path


def shorten(file: Any) -> None:
    rewards = file["data/demo_3/rewards"][:-1]
    del file["data/demo_3/rewards"]
    file["data/demo_3/rewards"] = rewards


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shorten, r"demo_3/rewards has shape \(3,\) for 4 actions"),
        (lambda f: f.pop("data/demo_4/actions"), "demo_4 has no actions"),
        (lambda f: f.pop("data/demo_4/obs/gripper"), "demonstration 4 and the first one differ in"),
        (lambda f: f["data/demo_5"].attrs.update({"num_samples": 99}), "says 99 samples and holds 6"),
        (lambda f: f.move("data/demo_5", "data/five"), r"demo_<number>; found \['five'\]"),
        (lambda f: f.pop("data"), "has no 'data'"),
        (lambda f: f["data"].attrs.update({"env_args": "[]"}), "env_args must be a JSON object"),
        (lambda f: f["data"].attrs.update({"env_args": "{"}), "not a readable robomimic"),
    ],
)
def test_a_spoiled_file_says_what_is_wrong(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_robomimic(spoil(tmp_path / "a.hdf5", change))


def test_texts_beside_the_numbers_are_left_out_with_a_note(tmp_path: Path) -> None:
    def add(file: Any) -> None:
        for i in range(12):
            file[f"data/demo_{i}/words"] = np.array([b"lift"] * (i + 1))

    with pytest.warns(UserWarning, match="do not hold numbers are left out"):
        episodes = read_robomimic(spoil(tmp_path / "a.hdf5", add))
    assert "words" not in episodes.extra
    assert len(episodes.metadata["notes"]) == 1


@pytest.mark.parametrize("extra", [("obs.x",), ("actions",), ("dones.x",), ("a", "a.b"), ("a.b", "a")])
def test_extra_arrays_cannot_take_anothers_place(
    make_episodes: Make, tmp_path: Path, extra: list[str]
) -> None:
    episodes = make_episodes()
    with pytest.raises(DataError, match="rename"):
        write_robomimic(replace(episodes, extra=dict.fromkeys(extra, episodes.action)), tmp_path / "a.hdf5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cache", [None, "low_dim"])
def test_robomimic_reads_what_we_write(make_episodes: Make, tmp_path: Path, cache: str | None) -> None:
    reason = "robomimic is not installed: pip install --no-deps robomimic==0.3.0, then termcolor and tqdm"
    dataset = pytest.importorskip("robomimic.utils.dataset", reason=reason, exc_type=ImportError)
    obs_utils = importlib.import_module("robomimic.utils.obs_utils")
    episodes = make_episodes((3, 1, 5))
    mask = np.repeat([True, False, True], episodes.lengths)
    write_robomimic(replace(episodes, extra={"mask.train": mask}), tmp_path / "a.hdf5")
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state", "grid"]}})
    made = dataset.SequenceDataset(
        hdf5_path=str(tmp_path / "a.hdf5"),
        obs_keys=("state", "grid"),
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=2,
        seq_length=3,
        hdf5_cache_mode=cache,
        filter_by_attribute="train",
    )
    assert made.demos == ["demo_0", "demo_2"]
    assert len(made) == 8
    item = made[3]  # the first step of the last demonstration; its frame stack repeats it
    np.testing.assert_array_equal(item["actions"], episodes.action[[4, 4, 5, 6]])
    np.testing.assert_array_equal(item["obs"]["state"], episodes.observation["state"][[4, 4, 5, 6]])
    np.testing.assert_array_equal(item["next_obs"]["state"], episodes.observation["state"][[5, 5, 6, 7]])
    assert episodes.reward is not None
    np.testing.assert_allclose(item["rewards"], episodes.reward[[4, 4, 5, 6]])
