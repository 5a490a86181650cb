"""Summaries against NumPy on the whole array, counts of what is not finite, and a picture of the right size."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sensorimotor.data import inspection
from sensorimotor.data.episodes import Episodes, open_episodes, save_episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.inspection import plot_trajectories, summarize, summary_table
from sensorimotor.data.plots import element_labels
from sensorimotor.data.spec import Field

Make = Callable[..., Episodes]


def rendered(episodes: Episodes) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table(summarize(episodes)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])  # one step at a time, some, all at once
def test_statistics_do_not_depend_on_the_block(
    make_episodes: Make, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(inspection, "_BLOCK_BYTES", block_bytes)
    episodes = make_episodes((30, 41))
    episodes.observation["state"][0] = 0.0  # without the extremes that drown all else
    keys = {key.key: key for key in summarize(episodes).keys}
    for name, array in {"state": episodes.observation["state"], "action": episodes.action}.items():
        x = array.astype(np.float64)
        np.testing.assert_allclose(keys[name].mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(keys[name].std, x.std(0), rtol=1e-12)
        np.testing.assert_array_equal(keys[name].minimum, x.min(0))
        np.testing.assert_array_equal(keys[name].maximum, x.max(0))
    grid = episodes.observation["grid"].reshape(71, 6)
    np.testing.assert_allclose(keys["grid"].mean, grid.mean(0), rtol=1e-12)


def test_wide_fields_are_summarised_as_a_whole(make_episodes: Make) -> None:
    episodes = make_episodes((3, 4))
    wide = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    spec = replace(episodes.spec, observation={"image.top": Field(shape=(8, 8, 3), dtype="uint8")})
    key = summarize(replace(episodes, spec=spec, observation={"image.top": wide})).keys[0]
    assert key.mean == pytest.approx((wide.mean(),))
    assert key.std == pytest.approx((wide.std(),))
    assert (key.minimum, key.maximum) == ((wide.min(),), (wide.max(),))


def test_values_that_are_not_finite_are_counted_and_left_out(make_episodes: Make) -> None:
    episodes = make_episodes((2, 2), full=False)
    episodes.action[:, 0] = [1.0, np.nan, 3.0, np.inf]
    episodes.action[:, 1] = np.nan
    key = next(key for key in summarize(episodes).keys if key.key == "action")
    assert key.not_finite == 6
    assert (key.minimum[0], key.mean[0], key.maximum[0], key.std[0]) == (1.0, 2.0, 3.0, 1.0)
    assert np.isnan([key.minimum[1], key.mean[1], key.maximum[1], key.std[1]]).all()


def test_counts_lengths_returns_and_successes(make_episodes: Make) -> None:
    episodes = replace(make_episodes((3, 1, 5)), reward=np.array([1, 1, 1, 0, 2, 2, 2, 2, 2.0]))
    summary = summarize(episodes)
    assert (summary.episodes, summary.steps, summary.seconds) == (3, 9, 9 / 12.5)
    assert summary.lengths == (1, 3, 5)
    assert summary.returns == (0.0, 13 / 3, 10.0)
    assert (summary.successes, summary.terminated) == (2, 2)
    bare = summarize(make_episodes(full=False))
    assert (bare.returns, bare.successes, bare.terminated) == (None, None, None)


def test_a_memory_map_gives_the_same_summary_and_it_is_json(make_episodes: Make, tmp_path: Path) -> None:
    episodes = make_episodes()
    save_episodes(episodes, tmp_path / "set")
    summary = summarize(episodes)
    assert summarize(open_episodes(tmp_path / "set")) == summary
    assert json.loads(json.dumps(summary.to_dict()))["keys"][0]["key"] == "state"


def test_the_table_shows_every_key_unit_and_note(make_episodes: Make) -> None:
    episodes = replace(make_episodes(), metadata={"notes": ["the camera [left] is absent"]})
    text = rendered(episodes)
    for word in (
        "3 episodes, 9 steps at 12.5 Hz",
        "state",
        "rad",
        "4 x 5 x 3",
        "uint8",
        "[1, 2]",
        "extra.flag",
    ):
        assert word in text
    assert "note: the camera [left] is absent" in text
    assert "success: 2 of 3 (66.7%)" in text


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        (Field(shape=(2,), names=("x", "y")), ("x", "y")),
        (Field(shape=(2,)), ("[0]", "[1]")),
        (Field(shape=(1, 2)), ("[0, 0]", "[0, 1]")),
    ],
)
def test_elements_are_called_by_name_or_index(field: Field, labels: tuple[str, ...]) -> None:
    assert element_labels(field) == labels


def ink(path: Path) -> tuple[tuple[int, ...], float]:
    """Shape of a PNG, and the share of its pixels that are not white."""
    import imageio.v3 as iio

    image = iio.imread(path)[..., :3]
    return image.shape, float((image < 250).any(axis=-1).mean())


def test_the_picture_has_a_plane_for_actions_of_two_and_lines_in_it(
    make_episodes: Make, tmp_path: Path
) -> None:
    episodes = make_episodes((30, 40, 50))
    plot_trajectories(episodes, tmp_path / "a.png")
    (_, wide, _), share = ink(tmp_path / "a.png")
    assert 0.01 < share < 0.5
    narrow = replace(
        episodes,
        spec=replace(episodes.spec, action=Field(shape=(1,))),
        action=np.ascontiguousarray(episodes.action[:, :1]),
    )
    plot_trajectories(narrow, tmp_path / "b.png", count=1, elements=1)
    assert ink(tmp_path / "b.png")[0][1] < wide


@pytest.mark.parametrize("arguments", [{"count": 0}, {"count": 6}, {"elements": 0}])
def test_an_impossible_picture_is_refused(
    make_episodes: Make, tmp_path: Path, arguments: dict[str, int]
) -> None:
    with pytest.raises(DataError, match="count must lie in"):
        plot_trajectories(make_episodes(), tmp_path / "a.png", **arguments)
    assert not (tmp_path / "a.png").exists()
