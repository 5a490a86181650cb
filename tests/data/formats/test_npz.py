"""npz archives: the real sets, the usual names, and what is left out on the way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats.npz import read_npz, write_npz

Make = Callable[..., Episodes]
ENDS = {"episode_ends": np.array([2, 5])}


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{"action": np.zeros((5, 2)), "state": np.zeros((5, 3)), **ENDS, **arrays})
    return path


def test_adroit_door_by_the_usual_names(shared_data: Path) -> None:
    with pytest.warns(UserWarning, match="init_door_body_pos"):
        episodes = read_npz(shared_data / "adroit_door" / "door_v0_human.npz", control_hz=25)
    assert (len(episodes), episodes.steps) == (25, 6729)
    assert episodes.spec.observation["state"].shape == (39,)
    assert episodes.spec.action.shape == (28,)
    assert episodes.reward is not None
    returns = np.add.reduceat(episodes.reward, episodes.starts)
    assert returns.mean() == pytest.approx(794.1, abs=0.1)


def test_foreign_names_and_shapes_are_brought_into_form(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.npz",
        action=np.arange(5.0),  # one number per step
        rewards=np.ones((5, 1)),
        terminals=np.array([0, 1, 0, 0, 1]),
        success=np.array([1, 0]),
    )
    episodes = read_npz(path, control_hz=10)
    assert episodes.action.shape == (5, 1)
    assert episodes.reward is not None
    assert episodes.reward.shape == (5,)
    assert episodes.terminated is not None
    assert episodes.terminated.tolist() == [False, True, False, False, True]
    assert episodes.success is not None
    assert episodes.success.tolist() == [True, False]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"action": np.zeros((4, 2))}, "action has 4 steps, the episode ends say 5"),
        ({"actions": np.zeros((5, 2))}, "two arrays could be the action"),
        ({"dones": np.arange(5)}, "terminated must be 0 or 1, got values from 0 to 4"),
        ({"episode_ends": np.array([2.0, 5.0])}, "whole numbers, got float64"),
        ({"episode_ends": np.array([3, 3, 5])}, "episode ends must be increasing"),
        ({"state": np.array(["a"] * 5)}, "state holds <U1; arrays must hold numbers"),
        ({"state": np.array([{}] * 5)}, "not a readable npz"),  # an object array is a pickle
    ],
)
def test_a_spoiled_archive_says_what_is_wrong(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_npz(write(tmp_path / "a.npz", **arrays), control_hz=10)


def test_an_archive_without_ends_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", action=np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"no array is named 'episode_ends'; it holds \['action'\]"):
        read_npz(tmp_path / "a.npz")


def test_ours_needs_no_choice_of_names(make_episodes: Make, tmp_path: Path) -> None:
    write_npz(make_episodes(), tmp_path / "a.npz")
    with pytest.raises(DataError, match="describes itself"):
        read_npz(tmp_path / "a.npz", observation={"state": "state"})


def test_numpy_reads_what_we_write_by_name(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes()
    episodes = replace(episodes, extra={"file": episodes.action})  # a name that numpy.savez could not store
    write_npz(episodes, tmp_path / "a.npz", compressed=False)
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["file"], episodes.action)
        np.testing.assert_array_equal(archive["episode_ends"], episodes.ends)
