from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes, concatenate, open_episodes, save_episodes
from sensorimotor.data.errors import DataError, SpecError
from sensorimotor.data.formats import load_dataset, save_dataset
from sensorimotor.data.inspection import summarize, summary_table
from sensorimotor.data.instructions import tasks_of, with_instruction
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows

Make = Callable[..., Episodes]
TEXT = Field(shape=(), dtype="str")


def told(episodes: Episodes) -> Episodes:
    texts = np.array(["left", "to the right"])[np.arange(episodes.steps) % 2]
    spec = replace(episodes.spec, observation={**episodes.spec.observation, "instruction": TEXT})
    return replace(episodes, spec=spec, observation={**episodes.observation, "instruction": texts})


def test_a_batch_holds_the_present_instruction_of_each_window(make_episodes: Make) -> None:
    episodes = told(make_episodes((3, 1, 5)))
    spec = episodes.spec.keep(("state", "instruction")).chunked(observation_steps=2, horizon=2, execute=1)
    batch = Windows(episodes, spec).batch(np.array([0, 3, 4]))
    assert batch.observation["instruction"] == ["left", "to the right", "left"]
    assert batch.observation["state"].shape == (3, 2, 3)
    assert batch.to("cpu").observation["instruction"] == batch.observation["instruction"]


def test_text_survives_selection_joining_and_disk(make_episodes: Make, tmp_path: Path) -> None:
    episodes = told(make_episodes((3, 1, 5)))
    both = concatenate([episodes.select([2]), episodes.select([0])])
    assert both.observation["instruction"].tolist() == ["left", "to the right"] * 2 + ["left"] + [
        "left",
        "to the right",
        "left",
    ]
    save_episodes(both, tmp_path / "set")
    np.testing.assert_array_equal(
        open_episodes(tmp_path / "set").observation["instruction"], both.observation["instruction"]
    )


def test_statistics_leave_text_out(make_episodes: Make) -> None:
    assert "instruction" not in Normalizer.fit(told(make_episodes())).keys


def test_a_look_at_the_data_counts_the_different_texts(make_episodes: Make) -> None:
    from rich.console import Console

    summary = summarize(told(make_episodes()))
    found = next(key for key in summary.keys if key.key == "instruction")
    assert (found.texts, found.dtype, found.minimum) == (2, "str", ())
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(summary))
    assert "2 different" in console.export_text()


def test_text_is_one_string_per_step() -> None:
    with pytest.raises(SpecError, match="one string per step"):
        Field(shape=(2,), dtype="str")


def test_numbers_are_no_text_and_text_is_no_number(make_episodes: Make) -> None:
    episodes = told(make_episodes())
    with pytest.raises(DataError, match="instruction is float64"):
        replace(episodes, observation={**episodes.observation, "instruction": np.zeros(episodes.steps)})
    with pytest.raises(DataError, match="environment is <U"):
        replace(
            episodes,
            observation={**episodes.observation, "environment": episodes.observation["instruction"]},
        )


def test_specs_with_text_are_written_and_compared() -> None:
    spec = Spec(observation={"instruction": TEXT}, action=Field(shape=(1,)), control_hz=5)
    assert Spec.from_json(spec.to_json()) == spec
    assert spec.observation["instruction"].size == 1


def test_tasks_of_a_recording_become_instructions(make_episodes: Make) -> None:
    episodes = make_episodes((2, 2))
    episodes = replace(
        episodes, extra={"task_index": np.array([1, 1, 0, 1])}, metadata={"tasks": ["push", "pull"]}
    )
    made = with_instruction(episodes)
    assert made.observation["instruction"].tolist() == ["pull", "pull", "push", "pull"]
    assert made.spec.observation["instruction"] == TEXT
    assert with_instruction(made) is made
    with pytest.raises(DataError, match="name no tasks"):
        with_instruction(replace(episodes, metadata={}))


@pytest.mark.parametrize("index", [[0, 2, 1, 1], [0, -1, 1, 1], [0.0, 1.0, 1.0, 1.0]])
def test_numbers_of_no_task_are_refused(make_episodes: Make, index: list[float]) -> None:
    episodes = replace(
        make_episodes((2, 2)), extra={"task_index": np.array(index)}, metadata={"tasks": ["push", "pull"]}
    )
    with pytest.raises(DataError, match="must number the 2 tasks from 0, got"):
        with_instruction(episodes)


def test_instructions_are_numbered_as_they_first_come() -> None:
    number, texts = tasks_of({"instruction": np.array(["b", "a", "b", "c"])}) or (None, None)
    assert texts == ["b", "a", "c"]
    assert number is not None
    assert number.tolist() == [0, 1, 0, 2]
    assert tasks_of({"state": np.zeros(2)}) is None


def test_lerobot_keeps_instructions_as_tasks(make_episodes: Make, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    save_dataset(told(make_episodes((3, 1))), tmp_path / "set", format="lerobot")
    (tmp_path / "set" / "meta" / "sensorimotor.json").unlink()  # as another program would write it
    read = load_dataset(tmp_path / "set")
    assert read.metadata["tasks"] == ["left", "to the right"]
    assert "instruction" not in read.observation
    assert with_instruction(read).observation["instruction"].tolist() == [
        "left",
        "to the right",
        "left",
        "to the right",
    ]
    again = with_instruction(read)
    save_dataset(again, tmp_path / "again", format="lerobot")
    np.testing.assert_array_equal(
        load_dataset(tmp_path / "again").observation["instruction"], again.observation["instruction"]
    )


def test_lerobot_refuses_what_it_could_not_say(make_episodes: Make, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    episodes = told(make_episodes((3, 1)))
    odd = replace(
        episodes, extra={"task_index": np.zeros(4, np.int64)}, metadata={"tasks": ["something else"]}
    )
    with pytest.raises(DataError, match="disagree"):
        save_dataset(odd, tmp_path / "odd", format="lerobot")
    spec = replace(episodes.spec, observation={**episodes.spec.observation, "note": TEXT})
    noted = {**episodes.observation, "note": episodes.observation["instruction"]}
    with pytest.raises(DataError, match="'note' is text"):
        save_dataset(replace(episodes, spec=spec, observation=noted), tmp_path / "note", format="lerobot")


def test_robomimic_files_hold_text_that_others_can_read(make_episodes: Make, tmp_path: Path) -> None:
    save_dataset(told(make_episodes((3, 1))), tmp_path / "set.hdf5")
    with h5py.File(tmp_path / "set.hdf5") as file:
        stored = list(file["data/demo_0/obs/instruction"].asstr()[()])  # pyright: ignore
    assert stored == ["left", "to the right", "left"]


def test_foreign_text_of_any_length_is_read(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes((2,), full=False)
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = episodes.action
        demo["obs/state"] = episodes.observation["state"]
        demo.create_dataset("obs/instruction", data=["go", "go on"], dtype=h5py.string_dtype())
    read = load_dataset(tmp_path / "set.hdf5", control_hz=10.0)
    assert read.observation["instruction"].tolist() == ["go", "go on"]
    assert read.spec.observation["instruction"] == TEXT
