"""The learning rate, by numbers."""

import pytest

from sensorimotor.training.config import Schedule, TrainingConfig
from sensorimotor.training.schedule import learning_rate


def config(schedule: Schedule = "cosine", minimum: float = 0.0, warmup: int = 4) -> TrainingConfig:
    return TrainingConfig(
        steps=12, warmup_steps=warmup, learning_rate=2.0, schedule=schedule, minimum_ratio=minimum
    )


@pytest.mark.parametrize(("step", "rate"), [(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0), (4, 2.0)])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warm_up_is_a_line_that_meets_the_peak(schedule: Schedule, step: int, rate: float) -> None:
    assert learning_rate(step, config(schedule)) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "minimum", "rate"),
    [
        (6, 0.0, 1.7071067811865475),  # a quarter of the way: (1 + cos 45 deg) / 2 of the peak
        (8, 0.0, 1.0),
        (8, 0.1, 1.1),
        (12, 0.0, 0.0),
        (12, 0.1, 0.2),
        (1000, 0.1, 0.2),
    ],
)
def test_the_cosine_falls_from_the_peak_to_the_minimum(step: int, minimum: float, rate: float) -> None:
    assert learning_rate(step, config(minimum=minimum)) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("step", [4, 11, 12, 10_000])
def test_constant_stays_at_the_peak(step: int) -> None:
    assert learning_rate(step, config("constant")) == 2.0


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, config(warmup=0)) == 2.0


def test_a_run_shorter_than_its_warm_up_only_rises() -> None:
    rates = [learning_rate(k, config(warmup=100)) for k in range(12)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < 2.0
