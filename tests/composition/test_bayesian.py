"""Bayesian search: it starts at the parents, finds what can be found, and goes on after an interruption."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.composition.bayesian import Bayesian, _to_cube, _to_simplex, bayesian_search, rounded
from sensorimotor.composition.search import parents
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.trials import Trials, Weights
from sensorimotor.data.errors import ConfigError

SEEDS = Seeds(selection=4, reporting=4)


def peak(at: Weights):
    """Values that fall off with the distance from the best weights, the same in every episode."""

    def play(weights: Weights, seeds: Sequence[int]) -> np.ndarray:
        return np.full(len(seeds), 1 - np.abs(np.subtract(weights, at)).sum() / 2)

    return play


@pytest.mark.parametrize("best", [(0.3, 0.7), (0.2, 0.5, 0.3)])
def test_the_best_weights_are_found(best: Weights) -> None:
    pytest.importorskip("optuna")
    found = bayesian_search(Trials(peak(best)), len(best), SEEDS, Bayesian(candidates=40))
    assert max(np.abs(np.subtract(found.weights, best))) <= 0.1
    assert found.candidates[: len(best)] == tuple(parents(len(best)))
    assert found.spent == 4 * len(found.candidates)


def test_a_start_is_tried_after_the_parents() -> None:
    pytest.importorskip("optuna")
    found = bayesian_search(
        Trials(peak((0.62, 0.38))), 2, SEEDS, Bayesian(candidates=3), starts=[(0.62, 0.38)]
    )
    assert found.candidates == ((1.0, 0.0), (0.0, 1.0), (0.62, 0.38))
    assert found.weights == (0.62, 0.38)


def test_an_interrupted_search_plays_nothing_twice(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    file, play = tmp_path / "trials.jsonl", peak((0.5, 0.3, 0.2))
    whole = bayesian_search(Trials(play), 3, SEEDS, Bayesian(candidates=12))
    bayesian_search(Trials(play, file), 3, SEEDS, Bayesian(candidates=7))
    again = Trials(play, file)
    assert bayesian_search(again, 3, SEEDS, Bayesian(candidates=12)) == whole
    assert again.spent == 4 * (len(whole.candidates) - 7)


def test_even_numbers_break_the_stick_evenly() -> None:
    cube = np.random.default_rng(0).random((20_000, 2))
    weights = np.array([_to_simplex(row) for row in cube.tolist()])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(weights.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(
        weights.var(axis=0), 1 / 18, atol=0.002
    )  # of the even distribution on a triangle
    for row in weights[:50].tolist():
        np.testing.assert_allclose(_to_simplex(_to_cube(row)), row, atol=1e-9)


@pytest.mark.parametrize(
    ("weights", "parts", "expected"),
    [
        ((1 / 3, 1 / 3, 1 / 3), 10, (0.4, 0.3, 0.3)),
        ((0.26, 0.74), 4, (0.25, 0.75)),
        ((0.0, 1.0), 50, (0.0, 1.0)),
    ],
)
def test_rounded_weights_still_sum_to_1(weights: Weights, parts: int, expected: Weights) -> None:
    assert rounded(weights, parts) == pytest.approx(expected)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"sensorimotor\[search\]"):
        bayesian_search(Trials(peak((0.5, 0.5))), 2, SEEDS)


def test_impossible_searches_are_refused() -> None:
    with pytest.raises(ConfigError, match="candidates must be at least 1, got 0"):
        Bayesian(candidates=0)


def test_starts_and_numbers_that_make_no_sense_are_refused() -> None:
    pytest.importorskip("optuna")
    trials = Trials(peak((0.5, 0.5)))
    with pytest.raises(ConfigError, match=r"candidates must be at least the 3 members, .* got 2"):
        bayesian_search(trials, 3, SEEDS, Bayesian(candidates=2))
    for start in ((0.2, 0.3, 0.5), (2.0, -1.0), (0.2, 0.2)):
        with pytest.raises(ConfigError, match="a start needs 2 weights of at least 0 that sum to 1"):
            bayesian_search(trials, 2, SEEDS, starts=[start])
