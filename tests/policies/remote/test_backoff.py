import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.remote.backoff import Backoff, BackoffConfig


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def waits(config: BackoffConfig, count: int, seed: int = 0) -> list[float]:
    backoff = Backoff(config, generator=np.random.default_rng(seed), clock=Clock())
    out = []
    for _ in range(count):
        backoff.failed()
        out.append(backoff.wait_s())
    return out


def test_waits_double_up_to_the_longest() -> None:
    config = BackoffConfig(first_s=0.1, factor=2, longest_s=1, jitter=0)
    assert waits(config, 6) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1])


def test_jitter_shortens_by_at_most_its_share_and_comes_from_the_generator() -> None:
    config = BackoffConfig(first_s=1, factor=1, longest_s=1, jitter=0.5)
    drawn = waits(config, 200)
    assert 0.5 <= min(drawn) < 0.55
    assert 0.95 < max(drawn) <= 1
    assert drawn == waits(config, 200)
    assert drawn != waits(config, 200, seed=1)


def test_a_wait_passes_with_the_clock_and_success_ends_it() -> None:
    clock = Clock()
    backoff = Backoff(BackoffConfig(first_s=1, jitter=0), generator=np.random.default_rng(0), clock=clock)
    assert backoff.wait_s() == 0
    backoff.failed()
    clock.now = 0.75
    assert backoff.wait_s() == 0.25
    clock.now = 2
    assert backoff.wait_s() == 0
    backoff.failed()
    backoff.succeeded()
    assert (backoff.wait_s(), backoff.failures) == (0, 0)


def test_any_number_of_failures_keeps_the_wait_finite() -> None:
    assert max(waits(BackoffConfig(longest_s=3), 3000)) <= 3


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"first_s": 0.0}, "0 < first_s"),
        ({"first_s": 9.0}, "0 < first_s"),
        ({"longest_s": float("nan")}, "0 < first_s"),
        ({"factor": 0.5}, "factor must be"),
        ({"jitter": 1.5}, "jitter must lie"),
    ],
)
def test_impossible_waits_are_refused(changes: dict[str, float], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        BackoffConfig(**changes)
