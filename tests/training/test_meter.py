"""Losses are read late, and the first bad one is found."""

import math

import pytest
import torch

from sensorimotor.training.meter import Fault, Meter


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def meter(losses: list[float], norms: list[float]) -> Meter:
    made = Meter()
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        made.add(step, torch.tensor(loss), torch.tensor(norm))
    return made


def test_means_are_over_everything_since_the_last_row() -> None:
    made = meter([1.0, 2.0], [10.0, 20.0])
    assert made.read(same) is None
    made.add(2, torch.tensor(6.0), torch.tensor(0.0))
    assert made.read(same) is None
    assert made.means() == (3.0, 10.0)
    made.add(3, torch.tensor(7.0), torch.tensor(1.0))
    made.read(same)
    assert made.means() == (7.0, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "norm"])
def test_the_first_update_that_is_not_finite_is_named(bad: float, where: str) -> None:
    losses, norms = [1.0, 1.0, 1.0, math.nan], [1.0, 1.0, 1.0, math.nan]
    (losses if where == "loss" else norms)[2] = bad
    fault = meter(losses, norms).read(same)
    assert isinstance(fault, Fault)
    assert fault.step == 2


def test_a_bad_number_in_any_process_is_seen_by_all() -> None:
    assert meter([1.0], [1.0]).read(lambda x: (x + torch.tensor([math.nan, 1.0])) / 2) is not None


def test_half_precision_losses_are_read_as_they_are() -> None:
    made = Meter()
    made.add(0, torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(2.0))
    made.read(same)
    assert made.means() == (1.5, 2.0)
