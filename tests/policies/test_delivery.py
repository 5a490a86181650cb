"""Planning in a thread: nothing is lost, nothing hangs, errors arrive where they are expected."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.asynchronous import Asynchronous
from sensorimotor.policies.delivery import Pending, SimulatedDelay, Worker
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.scheduling import NaiveAsync, RealTimeChunking

LONG = 20.0  # seconds after which a test says that something hangs


class Clock:
    """Seconds, moved by the test only."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Gated(Policy):
    """Answers when it is let; action i is what was observed plus i. Its first answer needs no permission."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            Spec(
                observation={"state": Field(shape=(1,))},
                action=Field(shape=(1,)),
                control_hz=50,
                horizon=20,
                execute=10,
            )
        )
        self.clock = clock
        self.gate, self.entered = threading.Semaphore(1), threading.Semaphore(0)
        self.takes = 0.0
        self.error: Exception | None = None

    def sample(self, observation: Mapping[str, Tensor], **options: Any) -> Tensor:
        self.entered.release()
        assert self.gate.acquire(timeout=LONG)
        self.clock.now += self.takes
        if self.error is not None:
            raise self.error
        return (observation["state"][:, -1] + torch.arange(20))[:, None, :, None]


@pytest.fixture
def policy() -> Gated:
    return Gated(Clock())


@pytest.fixture
def worker(policy: Gated) -> Iterator[Worker]:
    made = Worker(expected=2, clock=policy.clock)
    yield made
    for _ in range(20):
        policy.gate.release()
    assert made.close(timeout=LONG)


@pytest.fixture
def runner(policy: Gated, worker: Worker) -> Asynchronous:
    return Asynchronous(policy, NaiveAsync(), worker, generator=torch.Generator(), clock=policy.clock)


def act(runner: Asynchronous, t: int) -> float:
    return runner.act({"state": torch.tensor([[float(t)]])}).item()


def settle(worker: Worker) -> None:
    """Wait until the worker has done what it was given: it does one thing after the other."""
    done = worker.submit(lambda: torch.zeros(0), 0)
    assert done.result().numel() == 0


def test_control_goes_on_while_the_worker_plans(policy: Gated, worker: Worker, runner: Asynchronous) -> None:
    assert [act(runner, t) for t in range(13)] == list(range(13))  # asked at 10, not there at 12
    policy.takes = 0.06  # 3 steps at 50 Hz
    policy.gate.release()
    settle(worker)
    assert [act(runner, t) for t in range(13, 20)] == list(range(13, 20))
    assert runner.held == 0
    assert runner.latencies[-1] == pytest.approx(0.06)


def test_the_delay_is_measured_by_the_clock_and_the_first_one_ignored(
    policy: Gated, worker: Worker, runner: Asynchronous
) -> None:
    forecasts = []
    for n, seconds in enumerate((9.0, 0.086, 0.02), start=1):
        policy.takes = seconds
        for t in range(10 * n - 10, 10 * n + 1):
            act(runner, t)
        policy.gate.release()
        settle(worker)
        act(runner, 10 * n + 1)
        forecasts.append(runner.forecast.steps)
    assert forecasts == [2, 5, 5]


def test_a_policy_too_slow_leaves_its_robot_at_the_last_action(
    policy: Gated, worker: Worker, runner: Asynchronous
) -> None:
    actions = [act(runner, t) for t in range(24)]
    assert actions == [*range(20), 19, 19, 19, 19]
    assert runner.held == 4
    policy.gate.release()
    settle(worker)
    assert act(runner, 24) == 20  # of the chunk of 10, ten actions are past


def test_requests_that_wait_behind_a_slow_plan_are_given_up_and_the_plan_is_still_used(
    policy: Gated, worker: Worker
) -> None:
    runner = Asynchronous(policy, NaiveAsync(), worker, generator=torch.Generator(), patience=2)
    assert [act(runner, t) for t in range(11)] == list(range(11))  # asked at 10, and again at 12 and 14
    for _ in range(2):  # the first chunk, and the one asked for at 10
        assert policy.entered.acquire(timeout=LONG)
    assert [act(runner, t) for t in range(11, 16)] == list(range(11, 16))
    assert runner.given_up == 2
    policy.gate.release()
    assert policy.entered.acquire(timeout=LONG)  # that one is done, and the one asked for at 14 under way
    assert [act(runner, t) for t in range(16, 22)] == list(range(16, 22))  # beyond the end of the first chunk
    assert runner.held == 0


def test_an_error_in_the_worker_reaches_the_loop_and_the_loop_may_go_on(
    policy: Gated, worker: Worker, runner: Asynchronous
) -> None:
    for t in range(11):
        act(runner, t)
    policy.error = ValueError("the camera is gone")
    policy.gate.release()
    settle(worker)
    with pytest.raises(ValueError, match="the camera is gone"):
        act(runner, 11)
    policy.error = None
    assert act(runner, 12) == 11  # asks again
    policy.gate.release()
    settle(worker)
    assert act(runner, 13) == 13


def test_an_error_at_the_start_is_raised_there_and_the_start_is_made_again(
    policy: Gated, runner: Asynchronous
) -> None:
    policy.error = RuntimeError("no weights")
    with pytest.raises(RuntimeError, match="no weights"):
        act(runner, 3)
    policy.error = None
    policy.gate.release()
    assert act(runner, 4) == 4


def test_closing_ends_the_thread_and_forgets_what_had_not_begun(policy: Gated) -> None:
    worker = Worker(clock=policy.clock)
    running, waiting = (
        worker.submit(lambda: policy.sample({"state": torch.zeros(1, 1, 1)}), 0) for _ in "ab"
    )
    running.result()
    assert policy.entered.acquire(timeout=LONG)
    assert policy.entered.acquire(timeout=LONG)  # the second is under way, behind the gate
    never = worker.submit(lambda: torch.zeros(1), 0)
    assert not worker.close(timeout=0.0)  # says so, and does not hang
    policy.gate.release()
    assert worker.close(timeout=LONG)
    assert waiting.result().shape == (1, 1, 20, 1)
    assert _cancelled(never)
    with pytest.raises(ConfigError, match="closed and plans no more"):
        worker.submit(lambda: torch.zeros(1), 0)


def test_a_worker_may_be_closed_at_any_moment() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads meet everywhere
    try:
        for _ in range(5000):
            worker = Worker()
            for _ in range(3):
                worker.submit(lambda: torch.zeros(0), 0)
            closing = threading.Thread(target=worker.close, daemon=True)
            closing.start()
            closing.join(LONG)
            assert not closing.is_alive()
    finally:
        sys.setswitchinterval(before)


def test_what_was_given_up_behind_a_plan_that_never_ends_is_not_kept(policy: Gated, worker: Worker) -> None:
    class Observation:
        """As large as a picture."""

    policy.gate.acquire()
    worker.submit(lambda: policy.sample({"state": torch.zeros(1, 1, 1)}), 0)
    seen = Observation()
    kept = weakref.ref(seen)
    pending = worker.submit(lambda seen=seen: torch.zeros(0), 0)
    del seen
    assert pending.cancel()
    assert kept() is None
    assert pending.cancel()


def _cancelled(pending: Pending) -> bool:
    return pending.ready(0) and pending.future.cancelled()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_runner_closes_its_worker(policy: Gated) -> None:
    worker = Worker(clock=policy.clock)
    with Asynchronous(policy, NaiveAsync(), worker, generator=torch.Generator()) as runner:
        assert act(runner, 0) == 0
    assert worker.close(timeout=LONG)


def test_a_thread_and_an_injected_delay_execute_the_same_actions(gaussian: Callable) -> None:
    gate = threading.Semaphore(1)

    class Gate(type(gaussian(0.0, 0.1))):
        def sample(self, *args: Any, **options: Any) -> Tensor:
            assert gate.acquire(timeout=LONG)
            return super().sample(*args, **options)

    mode, actions = RealTimeChunking(every=4), []
    for delivery in (Worker(expected=3, clock=lambda: 0.0), SimulatedDelay(3)):
        policy = (Gate if isinstance(delivery, Worker) else gaussian)(0.0, 0.1, horizon=10)
        seed = torch.Generator().manual_seed(3)
        with torch.inference_mode(), Asynchronous(policy, mode, delivery, generator=seed) as runner:
            taken = []
            for t in range(24):
                if (
                    isinstance(delivery, Worker) and t >= 7 and t % 4 == 3
                ):  # three steps after it was asked for
                    gate.release()
                    settle(delivery)
                taken.append(act(runner, t))
            gate.release()  # of the plan still under way
        actions.append(taken)
    assert actions[0] == actions[1]
    assert len(set(actions[0])) == 24


def test_simulated_delays_are_given_one_by_one_and_the_last_one_repeats() -> None:
    delivery = SimulatedDelay([2, None, 1])
    assert delivery.expected == 2
    pending = [delivery.submit(lambda: torch.ones(1), step=10) for _ in range(4)]
    arrived = [[p.ready(step) for step in (10, 11, 12, 10**6)] for p in pending]
    assert arrived == [
        [False, False, True, True],
        [False, False, False, False],
        [False, True, True, True],
        [False, True, True, True],
    ]
