"""The first signal asks, the second acts."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sensorimotor.training.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert signal.getsignal(number) is before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_second_signal_acts_at_once() -> None:
    def two_signals() -> None:
        with stop_on_signal() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second signal was swallowed")

    with pytest.raises(KeyboardInterrupt):
        two_signals()


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    def work() -> None:
        with stop_on_signal() as asked:
            answers.append((asked(), signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [(False, True)]
