"""Searching weights: the law of the grid, races, resuming, the denoising prior, and honest reports."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.composition.composed import compose
from sensorimotor.composition.prior import denoising_weights, simplex_minimum
from sensorimotor.composition.search import Choice, Race, grid_search, parents, race, simplex_grid
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.selection import luck, optimism, report_selection
from sensorimotor.composition.theory import MixtureError, sample_error_bounds
from sensorimotor.composition.trials import Trials, Weights
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, DataError
from sensorimotor.data.spec import Field, Spec


class Coins:
    """Episodes that succeed at a rate that depends on the first weight; the luck of a seed is shared by all weights, or not."""

    def __init__(self, rate: Callable[[float], float], *, shared: bool = True) -> None:
        self.rate, self.shared, self.played = rate, shared, []

    def __call__(self, weights: Weights, seeds: Sequence[int]) -> np.ndarray:
        self.played.append((weights, list(seeds)))
        own = [] if self.shared else [round(1000 * weights[0])]
        draws = np.array([np.random.default_rng([seed, *own]).random() for seed in seeds])
        return (draws < self.rate(weights[0])).astype(float)


def test_the_grid_of_two_is_the_papers() -> None:
    grid = simplex_grid(2)
    assert [w[0] for w in grid] == pytest.approx([i / 10 for i in range(11)])
    assert all(sum(w) == pytest.approx(1.0) for w in simplex_grid(3, 5))
    assert len(simplex_grid(3, 5)) == 21
    assert set(parents(3)) <= set(simplex_grid(3, 5))


def test_the_grid_returns_the_exact_best_with_one_evaluation_each() -> None:
    calls = []

    def certain(weights: Weights, seeds: Sequence[int]) -> np.ndarray:
        calls.append(weights)
        return np.full(len(seeds), 1 - (weights[0] - 0.7) ** 2)

    choice = grid_search(Trials(certain), simplex_grid(2), Seeds(selection=5))
    assert choice.weights == pytest.approx((0.7, 0.3))
    assert len(calls) == 11
    assert choice.spent == 55


def test_ties_go_to_the_first_candidate() -> None:
    same = Trials(lambda weights, seeds: np.ones(len(seeds)))
    assert grid_search(same, simplex_grid(2), Seeds(selection=3)).weights == (0.0, 1.0)
    assert race(same, simplex_grid(2), Seeds(selection=40)).weights == (0.0, 1.0)


def test_seeds_that_choose_never_report() -> None:
    seeds = Seeds(selection=100_000, reporting=100_000)
    assert not set(seeds.choosing()) & set(seeds.telling())
    coins = Coins(lambda w: 0.5 + 0.3 * w)
    small = Seeds(selection=30, reporting=40)
    trials = Trials(coins)
    choice = grid_search(trials, simplex_grid(2), small)
    assert {s for _, played in coins.played for s in played} == set(small.choosing())
    coins.played.clear()
    report_selection(trials, choice, small, draws=10)
    assert {s for _, played in coins.played for s in played} == set(small.telling())
    with pytest.raises(ConfigError, match="there are 100000 starts of either kind"):
        Seeds(selection=60_000, first=50_000)


def test_a_race_finds_the_best_with_fewer_episodes() -> None:
    trials, seeds = (
        Trials(Coins(lambda w: 0.9 - 2.0 * abs(w - 0.6) if abs(w - 0.6) < 0.45 else 0.0)),
        Seeds(selection=1280),
    )
    choice = race(trials, simplex_grid(2), seeds)
    assert choice.weights[0] == pytest.approx(0.6)
    assert choice.spent < 0.5 * 11 * 1280
    assert trials.spent == choice.spent
    assert max(choice.counts) <= 1280


def test_a_race_hardly_ever_drops_the_best() -> None:
    lost = 0
    for study in range(40):
        trials = Trials(Coins(lambda w: 0.55 if w == 0.5 else 0.45, shared=False))
        choice = race(
            trials,
            [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)],
            Seeds(selection=160, first=1000 * study),
            Race(first=20),
        )
        lost += choice.counts[1] < max(choice.counts)
    assert lost <= 2


def test_a_report_after_a_race_plays_no_selection_and_judges_by_who_was_left() -> None:
    coins = Coins(lambda w: {0.0: 0.02, 1.0: 0.05}.get(w, 0.8))
    trials, seeds = Trials(coins), Seeds(selection=320, reporting=50)
    choice = race(trials, simplex_grid(2), seeds)
    counts = dict(zip(choice.candidates, choice.counts, strict=True))
    assert counts[0.0, 1.0] < 320  # both parents were dropped
    assert counts[1.0, 0.0] < 320
    coins.played.clear()
    report = report_selection(trials, choice, seeds)
    assert {s for _, played in coins.played for s in played} == set(seeds.telling())
    assert report.parent == (1.0, 0.0)
    assert report.spent == (choice.spent, 100)
    left = [trials.values(w, seeds.choosing()) for w, n in counts.items() if n == 320]
    assert report.optimism == optimism(left, 2000, np.random.default_rng(0))


def test_parents_always_take_part() -> None:
    for search in (grid_search, race):
        choice = search(Trials(Coins(lambda w: w)), [(0.5, 0.5), (0.5, 0.5)], Seeds(selection=20))
        assert choice.candidates == ((0.5, 0.5), (1.0, 0.0), (0.0, 1.0))
        assert choice.weights == (1.0, 0.0)
        with pytest.raises(ConfigError, match="candidates of one number of members, got none"):
            search(Trials(Coins(lambda w: w)), [], Seeds())
    with pytest.raises(ConfigError, match="at least 2 selection episodes, got 1"):
        race(Trials(Coins(lambda w: w)), simplex_grid(2), Seeds(selection=1))
    lone = Choice((0.5, 0.5), ((0.5, 0.5), (1.0, 0.0)), (0.5, 0.5), (4, 4), 8)
    with pytest.raises(ConfigError, match=r"did not try \[\(0.0, 1.0\)\], one member alone"):
        report_selection(Trials(Coins(lambda w: w)), lone, Seeds(selection=4))


def test_a_race_refuses_values_it_cannot_bound() -> None:
    with pytest.raises(ConfigError, match=r"a race needs values in 0\.\.1, got 3 to 3"):
        race(Trials(lambda w, s: np.full(len(s), 3.0)), simplex_grid(2), Seeds())


def test_an_interrupted_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = grid_search(Trials(Coins(lambda w: w)), simplex_grid(2), Seeds(selection=20))
    coins = Coins(lambda w: w)

    def dying(weights: Weights, seeds: Sequence[int]) -> np.ndarray:
        if len(coins.played) == 4:
            raise KeyboardInterrupt
        return coins(weights, seeds)

    with pytest.raises(KeyboardInterrupt):
        grid_search(Trials(dying, tmp_path / "trials.jsonl"), simplex_grid(2), Seeds(selection=20))
    with (tmp_path / "trials.jsonl").open("a") as stream:
        stream.write('{"weights": [0.4')  # cut while it was written
    again = Trials(Coins(lambda w: w), tmp_path / "trials.jsonl")
    assert grid_search(again, simplex_grid(2), Seeds(selection=20)) == whole
    assert again.spent == 7 * 20
    assert Trials(coins, tmp_path / "trials.jsonl").known((0.3, 0.7)).keys() == set(
        Seeds(selection=20).choosing()
    )


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_text(
        '{"weights": [1.0], "seeds": [1], "values": [1.0]}\nnonsense\n{"weights": [1.0], "seeds": [2], "values": [1.0]}\n'
    )
    with pytest.raises(DataError, match=r"trials\.jsonl, line 2 is damaged"):
        Trials(lambda w, s: np.ones(len(s)), file)


def test_a_journal_says_what_it_is_of(tmp_path: Path) -> None:
    file, ones = tmp_path / "trials.jsonl", lambda w, s: np.ones(len(s))
    file.write_text('{"identity": {"memb')  # cut while it was written
    Trials(ones, file, identity={"member": "a"}).values((1.0,), [1])
    with pytest.raises(
        DataError, match="episodes of another search: member was 'a' there and is 'b' here; choose"
    ):
        Trials(ones, file, identity={"member": "b"})
    file.write_text('{"weights": [1.0], "seeds": [1], "values": [0.0]}')  # whole, but for its line feed
    with pytest.raises(DataError, match="does not say what its episodes are of"):
        Trials(ones, file, identity={"member": "b"})
    Trials(ones, file).values((1.0,), [2])
    assert Trials(ones, file).values((1.0,), [1, 2]).tolist() == [0.0, 1.0]
    file.write_text('{"weights": [1.0], "seeds": [1], "values": [NaN]}\n')
    with pytest.raises(DataError, match=r"line 1 is damaged .values that are not finite"):
        Trials(ones, file)


def test_values_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="1 of them not finite"):
        Trials(lambda w, s: np.array([1.0, np.nan])).values((1.0,), [1, 2])


def test_the_report_compares_on_the_same_fresh_episodes() -> None:
    trials, seeds = (
        Trials(Coins(lambda w: 0.5 + 0.4 * (1 - abs(2 * w - 1)))),
        Seeds(selection=200, reporting=400),
    )
    report = report_selection(trials, grid_search(trials, simplex_grid(2), seeds), seeds)
    assert report.choice.weights[0] == pytest.approx(0.5, abs=0.11)
    assert report.gain.low > 0
    assert report.chosen_value.value - report.parent_value.value == pytest.approx(report.gain.value)
    assert report.spent == (11 * 200, 800)
    json.dumps(report.to_dict())


def test_the_best_of_many_equals_looks_better_than_it_is() -> None:
    # 11 interior weights as good as the better parent, 100 rollouts at 0.6, look about 6 to 8 points better.
    generator = np.random.default_rng(0)
    values = [generator.binomial(1, 0.6, 100).astype(float) for _ in range(11)]
    assert luck(0.6, values, 4000, np.random.default_rng(1)) == pytest.approx(0.078, abs=0.006)
    assert np.isnan(luck(0.6, [v / 2 for v in values], 10, np.random.default_rng(1)))
    assert 0.03 < optimism(values, 2000, np.random.default_rng(1)) < 0.16
    certain = [np.full(50, 0.2), np.full(50, 0.9)]
    assert optimism(certain, 100, np.random.default_rng(1)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("gram", "weights"),
    [
        (np.diag([1.0, 1.0]), (0.5, 0.5)),
        (np.diag([0.25, 0.49]), (0.6622, 0.3378)),
        (np.array([[1.0, 2.0], [2.0, 5.0]]), (1.0, 0.0)),
        (np.diag([1.0, 2.0, 4.0]), (4 / 7, 2 / 7, 1 / 7)),
        (np.ones((3, 3)), (1.0, 0.0, 0.0)),
        (np.zeros((2, 2)), (1.0, 0.0)),
        (np.diag([0.0, 1.0]), (1.0, 0.0)),
        (np.array([[1.0, -1.0], [-1.0, 1.0]]), (0.5, 0.5)),  # errors that cancel
        (np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), (0.5, 0.5, 0.0)),
    ],
)
def test_the_programme_is_solved_exactly(gram: np.ndarray, weights: tuple[float, ...]) -> None:
    assert simplex_minimum(gram) == pytest.approx(weights, abs=1e-4)


@pytest.mark.parametrize(
    ("first", "other", "weight"), [(0.5, 0.5, 0.5), (0.5, 0.7, 0.6622), (0.5, 1.0, 0.8), (0.4, 1.2, 0.9)]
)
def test_the_denoising_prior_of_two_sensors(
    gaussian: Callable, first: float, other: float, weight: float
) -> None:
    """Members see a* + s_i n, and know their own posterior: w_A = s_B^2 / (s_A^2 + s_B^2)."""
    generator = np.random.default_rng(0)
    target = generator.normal(size=(40_000, 1))
    readings = {
        "a": target + first * generator.normal(size=target.shape),
        "b": target + other * generator.normal(size=target.shape),
    }
    spec = Spec(observation={k: Field(shape=(1,)) for k in readings}, action=Field(shape=(1,)), control_hz=10)
    episodes = Episodes(
        spec=spec,
        observation={k: v.astype(np.float32) for k, v in readings.items()},
        action=target.astype(np.float32),
        ends=np.array([len(target)]),
    )
    members = [sensor(gaussian, key, spread) for key, spread in (("a", first), ("b", other))]
    found = denoising_weights(compose(members), episodes, count=40_000)
    assert found[0] == pytest.approx(weight, abs=0.03)


def test_members_are_weighed_where_all_have_a_say(gaussian: Callable) -> None:
    """The first is wrong by 1, the second right: how much longer the first one's chunk is must not matter."""
    rows = np.random.default_rng(0).normal(size=(400, 1)).astype(np.float32)
    spec = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10)
    episodes = Episodes(spec=spec, observation={"state": rows}, action=rows, ends=np.array([400]))
    for horizon in (2, 8):
        pair = [gaussian(1.0, 1.0, horizon=horizon), gaussian(0.0, 1.0, horizon=2)]
        assert denoising_weights(compose(pair), episodes)[1] > 0.9
    with pytest.raises(ConfigError, match="1 members have weight 0 and are never asked"):
        denoising_weights(compose(pair, [1.0, 0.0]), episodes)


def sensor(gaussian: Callable, key: str, spread: float) -> Any:
    """The posterior of a standard normal target, given one noisy reading."""
    kind: Any = gaussian

    class Sensor(kind):
        def predict_noise(self, x: Any, s: Any, condition: Any) -> Any:
            self.mean = condition.values[:, -1:] / (1 + spread**2)
            return super().predict_noise(x, s, condition)

    return Sensor(0.0, spread**2 / (1 + spread**2), key=key)


def test_mixing_beats_both_only_inside() -> None:
    error = MixtureError.of(np.array([1.0, 0.0]), np.array([0.0, -2.0]), 0.5, 0.3, 0.1)
    assert (error.a, error.b, error.c) == pytest.approx((5.6, -8.4, 4.3))
    assert (error.best, error.at(error.best), error.at(0), error.at(1)) == pytest.approx(
        (0.75, 1.15, 4.3, 1.5)
    )
    collinear = MixtureError.of(np.array([1.0, 0.0]), np.array([3.0, 0.0]), 0.0, 0.0, 0.0)
    assert (-collinear.b / (2 * collinear.a), collinear.best) == pytest.approx((1.5, 1.0))


def test_groenwalls_bounds_by_hand() -> None:
    times = np.linspace(0, 1, 20_001)
    bounds = sample_error_bounds(times, np.full_like(times, 0.1), lipschitz=1.0, gain=1.0)
    assert bounds == pytest.approx((0.171828, 0.178732), abs=1e-6)
    actual = 0.1 * (1 - np.exp(-1))  # of x' = -x + 0.1 against x' = -x, after a time of 1
    assert actual == pytest.approx(0.063212, abs=1e-6)
    assert actual < min(bounds)


def test_the_optimism_of_a_search_is_what_fresh_episodes_take_away() -> None:
    generator = np.random.default_rng(0)
    estimated, true = [], []
    for _ in range(60):
        table = (generator.random((11, 100)) < 0.6).astype(float)
        estimated.append(optimism(list(table), 50, generator))
        true.append(table.mean(axis=1).max() - 0.6)
    assert np.mean(estimated) == pytest.approx(np.mean(true), abs=0.012)  # about 0.077
