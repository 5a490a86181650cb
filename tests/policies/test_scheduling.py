"""When chunks are asked for, and how delays are counted."""

from typing import Any

import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.scheduling import (
    DelayForecast,
    NaiveAsync,
    RealTimeChunking,
    Replanning,
    TemporalMerge,
    check_delay,
    delay_steps,
)


def spec(*, horizon: int = 16, execute: int = 8, start: int = 0) -> Spec:
    return Spec(
        observation={"state": Field(shape=(1,))},
        action=Field(shape=(1,)),
        control_hz=10,
        observation_steps=1 - start,
        horizon=horizon,
        execute=execute,
        start=start,
    )


@pytest.mark.parametrize(
    ("seconds", "hz", "steps"),
    [(0.086, 50, 5), (0.2, 25, 5), (0.36, 30, 11), (0.28, 25, 7), (0.0, 50, 0), (1e-4, 50, 1)],
)
def test_a_latency_takes_whole_steps_rounded_up_but_not_by_the_last_bit(
    seconds: float, hz: float, steps: int
) -> None:
    assert delay_steps(seconds, hz) == steps


def test_the_forecast_is_the_longest_of_the_latest_and_warm_up_does_not_count() -> None:
    forecast = DelayForecast(2, keep=3, warmup=1)
    forecast.add(90)
    assert forecast.steps == 2
    seen = []
    for delay in (1, 5, 1, 1, 1):
        forecast.add(delay)
        seen.append(forecast.steps)
    assert seen == [2, 5, 5, 5, 1]


@pytest.mark.parametrize(
    ("asking", "start", "after"),
    [
        (Replanning(), 0, 8),
        (Replanning(every=5), 0, 5),
        (Replanning(threshold=0.5), 0, 8),
        (Replanning(threshold=0.7), 0, 5),
        (Replanning(threshold=0.0), 0, 16),
        (Replanning(threshold=0.0), -1, 15),
        (Replanning(threshold=0.5), -1, 7),
        (Replanning(threshold=0.999), -1, 1),
    ],
)
def test_a_chunk_is_asked_for_after_so_many_actions_or_when_a_share_is_left(
    asking: Replanning, start: int, after: int
) -> None:
    assert asking.after(spec(start=start)) == after


@pytest.mark.parametrize(
    ("every", "delay", "fits"), [(3, 3, True), (5, 3, True), (2, 3, False), (6, 3, False)]
)
def test_real_time_chunking_needs_room_for_the_delay_on_both_sides(
    every: int, delay: int, fits: bool
) -> None:
    mode = RealTimeChunking(every=every)
    if fits:
        check_delay(mode, spec(horizon=8, execute=1), delay)
    else:
        with pytest.raises(ConfigError, match=rf"3 <= {every} <= 5; choose every in 3\.\.5"):
            check_delay(mode, spec(horizon=8, execute=1), delay)


def test_only_actions_from_now_on_are_room_and_other_modes_need_none() -> None:
    check_delay(RealTimeChunking(every=5), spec(horizon=8, execute=1), 3)
    with pytest.raises(ConfigError, match=r"chunks of 7 actions.*3 <= 5 <= 4"):
        check_delay(RealTimeChunking(every=5), spec(horizon=8, execute=1, start=-1), 3)
    with pytest.raises(ConfigError, match="plan faster, or predict longer chunks"):
        check_delay(RealTimeChunking(every=5), spec(horizon=8, execute=1), 5)
    check_delay(NaiveAsync(every=5), spec(horizon=8, execute=1), 7)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Replanning(every=0), "every must be at least 1"),
        (lambda: Replanning(every=2, threshold=0.5), "not both"),
        (lambda: Replanning(threshold=1.0), "threshold must lie in"),
        (lambda: TemporalMerge(old=1.5), "old must lie in"),
        (lambda: Replanning(every=16).after(spec(start=-1)), "every must be at most 15"),
        (lambda: DelayForecast(-1), "initial and warmup"),
    ],
)
def test_impossible_settings_are_refused(wrong: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        wrong()
