"""Episodes are consistent or refused; selections, unions and memory maps hold the same numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes, concatenate, open_episodes, save_episodes
from sensorimotor.data.errors import DataError

Make = Callable[..., Episodes]
Same = Callable[[Episodes, Episodes], None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ends": np.array([3, 3, 9])}, "increasing"),
        ({"ends": np.array([0, 4, 9])}, "start above 0"),
        ({"ends": np.array([], dtype=np.int64)}, "episode ends"),
        ({"ends": np.array([3, 4, 8])}, "has 9 steps, the episode ends say 8"),
        ({"reward": np.zeros(8)}, "reward has 8"),
        (
            {"action": np.zeros((9, 3), np.float32)},
            r"action is float32\[3\] per step, the spec says float32\[2\]",
        ),
        ({"action": np.zeros((9, 2))}, "action is float64"),
        ({"observation": {}}, "observation keys"),
        ({"success": np.array([True])}, "success has 1 entries for 3 episodes"),
    ],
)
def test_inconsistent_episodes_are_refused(make_episodes: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        replace(make_episodes(), **changes)


def test_lengths_and_starts_follow_from_the_ends(make_episodes: Make) -> None:
    episodes = make_episodes((3, 1, 5))
    assert (len(episodes), episodes.steps) == (3, 9)
    assert episodes.starts.tolist() == [0, 3, 4]
    assert episodes.lengths.tolist() == [3, 1, 5]


def test_selecting_everything_changes_nothing(make_episodes: Make, assert_same: Same) -> None:
    episodes = make_episodes()
    assert_same(episodes.select([0, 1, 2]), episodes)


def test_the_union_of_the_parts_is_the_whole(make_episodes: Make, assert_same: Same) -> None:
    episodes = make_episodes()
    assert_same(concatenate([episodes.select([0]), episodes.select([1, 2])]), episodes)


def test_a_selection_keeps_its_order_and_may_repeat(make_episodes: Make) -> None:
    episodes = make_episodes((3, 1, 5))
    chosen = episodes.select([2, 0, 2])
    assert chosen.ends.tolist() == [5, 8, 13]
    np.testing.assert_array_equal(chosen.action[:5], episodes.action[4:])
    np.testing.assert_array_equal(chosen.action[5:8], episodes.action[:3])
    np.testing.assert_array_equal(chosen.extra["states"][8:], episodes.extra["states"][4:])
    assert chosen.success is not None
    assert chosen.success.tolist() == [True, True, True]


def test_tasks_of_two_sets_become_one_list(make_episodes: Make) -> None:
    episodes = make_episodes((2,), full=False)
    steps = np.array([0, 1])
    a, b = (
        replace(episodes, extra={"task_index": steps}, metadata={"tasks": tasks})
        for tasks in (["push", "pull"], ["pull", "turn"])
    )
    both = concatenate([a, b])
    assert [both.metadata["tasks"][i] for i in both.extra["task_index"]] == ["push", "pull", "pull", "turn"]
    assert both.metadata["tasks"] == ["push", "pull", "turn"]


@pytest.mark.parametrize("wanted", [[], [3], [-1]])
def test_a_selection_outside_the_set_is_refused(make_episodes: Make, wanted: list[int]) -> None:
    with pytest.raises(DataError, match=r"0\.\.2"):
        make_episodes().select(wanted)


def test_sets_with_different_specs_are_not_joined(make_episodes: Make) -> None:
    episodes = make_episodes()
    with pytest.raises(DataError, match="specs differ"):
        concatenate([episodes, replace(episodes, spec=replace(episodes.spec, control_hz=5.0))])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_found(make_episodes: Make, value: float) -> None:
    episodes = make_episodes((3, 1, 5))
    episodes.check_finite()
    episodes.action[6, 1] = value
    with pytest.raises(DataError, match="action is not finite at episode 2, step 2"):
        episodes.check_finite()


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("memory_map", [True, False])
def test_a_folder_gives_back_every_bit(
    make_episodes: Make, assert_same: Same, tmp_path: Path, full: bool, memory_map: bool
) -> None:
    episodes = make_episodes(full=full)
    save_episodes(episodes, tmp_path / "set")
    opened = open_episodes(tmp_path / "set", memory_map=memory_map)
    assert_same(opened, episodes)
    assert isinstance(opened.action, np.memmap) == memory_map


def test_saving_again_replaces_the_whole_folder(
    make_episodes: Make, assert_same: Same, tmp_path: Path
) -> None:
    save_episodes(make_episodes(), tmp_path / "set")
    bare = make_episodes((2, 2), full=False)
    save_episodes(bare, tmp_path / "set")
    assert_same(open_episodes(tmp_path / "set"), bare)
    assert not (tmp_path / "set" / "reward.npy").exists()


def test_a_folder_of_something_else_is_never_replaced(make_episodes: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="choose a new folder"):
        save_episodes(make_episodes(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_cut_or_incomplete_folder_is_an_error(make_episodes: Make, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(DataError, match="not a folder of save_episodes"):
        open_episodes(folder)
    save_episodes(make_episodes(), folder)
    data = (folder / "action.npy").read_bytes()
    (folder / "action.npy").write_bytes(data[:-4])
    with pytest.raises(DataError, match="damaged"):
        open_episodes(folder)
    (folder / "action.npy").unlink()
    with pytest.raises(DataError, match=r"no action\.npy"):
        open_episodes(folder)


def test_a_replacement_cut_between_its_renames_is_undone_by_the_next_reader(
    make_episodes: Make, assert_same: Same, tmp_path: Path
) -> None:
    episodes = make_episodes()
    save_episodes(episodes, tmp_path / ".set.previous")  # where a crash at that moment leaves it
    assert_same(open_episodes(tmp_path / "set"), episodes)


def test_a_key_that_is_no_file_name_is_refused(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes()
    with pytest.raises(DataError, match="a/b"):
        save_episodes(replace(episodes, extra={"a/b": episodes.action}), tmp_path / "set")
