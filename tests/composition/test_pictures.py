"""Pictures of searches and of candidates: drawn, not blank, and refused where they would mislead."""

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from sensorimotor.composition.curve import weight_curve
from sensorimotor.composition.fan import Fan, candidate_fan
from sensorimotor.composition.search import grid_search, parents, simplex_grid
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.selection import SelectionReport, report_selection
from sensorimotor.composition.trials import Trials
from sensorimotor.data.errors import ConfigError

SEEDS = Seeds(selection=30, reporting=30)


def searched(members: int, value: Callable[[float], float]) -> SelectionReport:
    """A search in which the first weight decides."""

    def play(weights, seeds) -> np.ndarray:
        return (np.random.default_rng(0).random(len(seeds)) < value(weights[0])).astype(float)

    trials = Trials(play)
    return report_selection(trials, grid_search(trials, simplex_grid(members, 4), SEEDS), SEEDS, draws=50)


def colors(path: Path) -> set[tuple[int, ...]]:
    """The colours of a picture, which is at least a screen's third wide."""
    pixels = imageio.imread(path)
    assert pixels.shape[1] > 600
    return {tuple(row) for row in pixels[..., :3].reshape(-1, 3).tolist()}


@pytest.mark.parametrize("members", [2, 3])
def test_a_search_is_drawn(tmp_path: Path, members: int) -> None:
    report = searched(members, lambda w: 0.9 - abs(w - 0.5))
    weight_curve(report, [f"policy {i}" for i in range(members)], tmp_path / "curve.png")
    found = colors(tmp_path / "curve.png")
    assert {(0x2F, 0x6D, 0xB3), (0x2F, 0x9E, 0x62), (0xE0, 0x84, 0x1E)} <= found  # candidates, chosen, parent


def test_a_search_that_chose_a_parent_is_drawn_without_a_second_one(tmp_path: Path) -> None:
    report = searched(2, lambda w: w)
    assert report.choice.weights in parents(2)
    weight_curve(report, ["weak", "strong"], tmp_path / "curve.png", value="score")
    assert (0x2F, 0x9E, 0x62) not in colors(tmp_path / "curve.png")


def test_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 names for 2 members"):
        weight_curve(searched(2, lambda w: w), ["a"], tmp_path / "curve.png")


def chunks(width: int) -> torch.Tensor:
    return torch.randn(8, 16, width, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)


def test_candidates_in_the_plane_stand_before_their_scene(tmp_path: Path) -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    fans = {"policy": Fan(chunks(2)), "reranked": Fan(chunks(2), torch.arange(8.0), 7)}
    candidate_fan(fans, tmp_path / "fan.png", scene=[square], start=np.zeros(2), unit="m")
    assert {(0xEE, 0xF0, 0xF3), (0x1B, 0x1F, 0x24)} <= colors(tmp_path / "fan.png")  # scene, chosen


def test_candidates_of_arms_are_drawn_over_time(tmp_path: Path) -> None:
    fans = {"policy": Fan(chunks(7)), "reranked": Fan(chunks(7), torch.full((8,), torch.nan), 2)}
    candidate_fan(fans, tmp_path / "fan.png", unit="rad")
    assert len(colors(tmp_path / "fan.png")) > 20


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Fan(chunks(2)[0]), r"needs chunks \(K, H, A\) and values \(K,\), got \(16, 2\)"),
        (lambda: Fan(chunks(2), torch.zeros(3)), r"got \(8, 16, 2\) and \(3,\)"),
        (lambda: Fan(chunks(2), chosen=8), "one of 8 candidates, got 8"),
        (
            lambda: candidate_fan({"a": Fan(chunks(2)), "b": Fan(chunks(3))}, "x.png"),
            r"one width, got \[2, 3\]",
        ),
        (lambda: candidate_fan({}, "x.png"), r"one width, got \[\]"),
    ],
)
def test_fans_that_mean_nothing_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
