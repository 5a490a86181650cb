"""The first signal asks, the second acts."""

import os
import signal
import threading

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
