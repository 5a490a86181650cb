"""Which windows and which random numbers go into each update."""

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.training.order import Order, held_out_slices


def windows(order: Order, step: int) -> list[int]:
    return np.concatenate([order.slice(step, i).index for i in range(order.slices)]).tolist()


@pytest.mark.parametrize(("length", "batch"), [(12, 4), (10, 4), (3, 8), (1, 2)])
def test_every_epoch_visits_every_window_once(length: int, batch: int) -> None:
    order = Order(length, batch, 1, seed=3)
    stream = [w for step in range(length) for w in windows(order, step)]  # `batch` whole epochs
    epochs = [stream[i : i + length] for i in range(0, len(stream), length)]
    assert len(epochs) == batch
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)


def test_epochs_and_seeds_differ() -> None:
    order, other = Order(50, 50, 1, seed=0), Order(50, 50, 1, seed=1)
    assert windows(order, 0) != windows(order, 1)
    assert windows(order, 0) != windows(other, 0)


@pytest.mark.parametrize("slices", [1, 2, 4, 8])
def test_slicing_does_not_change_the_batch(slices: int) -> None:
    whole, cut = Order(20, 8, 1, seed=0), Order(20, 8, slices, seed=0)
    assert all(windows(whole, step) == windows(cut, step) for step in range(10))


def test_the_position_is_the_step_alone() -> None:
    once, again = Order(10, 4, 2, seed=0), Order(10, 4, 2, seed=0)
    forward = [windows(once, step) for step in range(8)]
    backward = [windows(again, step) for step in reversed(range(8))]
    assert forward == backward[::-1]


def test_every_slice_has_its_own_random_numbers_and_the_same_each_time() -> None:
    order = Order(10, 4, 2, seed=0)
    places = [(step, number) for step in range(20) for number in range(2)]
    seeds = [(order.slice(*p).noise_seed, order.slice(*p).layer_seed) for p in places]
    again = Order(10, 4, 2, seed=0)
    assert seeds == [(again.slice(*p).noise_seed, again.slice(*p).layer_seed) for p in places]
    flat = [seed for pair in seeds for seed in pair]
    assert len(set(flat)) == len(flat)


def test_the_order_counts_epochs() -> None:
    assert Order(20, 8, 1, seed=0).epoch(5) == 2.0


@pytest.mark.parametrize(("length", "batch", "slices", "word"), [(0, 4, 1, "windows"), (9, 4, 3, "4 and 3")])
def test_impossible_orders_are_refused(length: int, batch: int, slices: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Order(length, batch, slices, seed=0)


@pytest.mark.parametrize(("length", "limit", "expected"), [(20, 12, 12), (7, 12, 7)])
def test_held_out_windows_are_fixed_distinct_and_bounded(length: int, limit: int, expected: int) -> None:
    first = list(held_out_slices(length, limit, 5, seed=0))
    again = list(held_out_slices(length, limit, 5, seed=0))
    index = np.concatenate([piece.index for piece in first])
    assert len(set(index.tolist())) == len(index) == expected
    assert index.tolist() == np.concatenate([piece.index for piece in again]).tolist()
    assert [p.noise_seed for p in first] == [p.noise_seed for p in again]
    assert max(len(piece.index) for piece in first) <= 5
