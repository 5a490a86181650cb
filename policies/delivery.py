"""How long a plan is under way: a fixed number of control steps in simulation, a worker thread on a robot."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from torch import Tensor

from ..data.errors import ConfigError
from .scheduling import delay_steps

Plan = Callable[[], Tensor]


class Pending(Protocol):
    """A plan under way."""

    def ready(self, step: int) -> bool:
        """Whether it has arrived at this control step."""
        ...

    def result(self) -> Tensor:
        """The chunks; raises what planning raised."""
        ...

    def delay(self, control_hz: float) -> int:
        """Control steps it was under way, once it has arrived."""
        ...

    def cancel(self) -> bool:
        """Do not begin it if it has not begun; whether that was so, and it will never arrive."""
        ...


class Delivery(Protocol):
    """Makes plans and says when they arrive.

    Attributes:
        expected: control steps that the first plan will take.
    """

    expected: int

    def submit(self, plan: Plan, step: int) -> Pending:
        """Begin a plan at this control step."""
        ...

    def at_once(self, plan: Plan) -> Tensor:
        """Make a plan and wait for it; for the start of an episode, when nothing moves yet."""
        ...

    def close(self) -> bool:
        """End what runs and say whether it has ended; closing twice is fine."""
        ...


class _Timed:
    """A plan that was made when it was asked for, and is kept back until its step has come."""

    def __init__(self, chunks: Tensor, asked: int, steps: int | None) -> None:
        self._chunks, self._asked, self._steps = chunks, asked, steps

    def ready(self, step: int) -> bool:
        return self._steps is not None and step >= self._asked + self._steps

    def result(self) -> Tensor:
        return self._chunks

    def delay(self, control_hz: float) -> int:
        return self._steps or 0

    def cancel(self) -> bool:
        return False


class SimulatedDelay:
    """A plan asked for at step t arrives at step t + d; the same run is the same run every time."""

    def __init__(self, steps: int | Sequence[int | None]) -> None:
        """Inject a delay.

        Args:
            steps: d, or one d per plan, the last one repeating; None for a plan that never arrives.
        """
        self._steps = (steps,) if isinstance(steps, int) else tuple(steps)
        known = [d for d in self._steps if d is not None]
        if not self._steps or any(d < 0 for d in known):
            raise ConfigError(f"a delay is a number of control steps of at least 0, got {steps}")
        self.expected = known[0] if known else 0
        self._count = 0

    def submit(self, plan: Plan, step: int) -> Pending:
        """Make a plan now, for later."""
        steps = self._steps[min(self._count, len(self._steps) - 1)]
        self._count += 1
        return _Timed(plan(), step, steps)

    def at_once(self, plan: Plan) -> Tensor:
        """Make a plan for now."""
        return plan()

    def close(self) -> bool:
        """Nothing runs."""
        return True


class _Running:
    """A plan in the hands of the worker."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        self.plan: Plan | None = plan
        self.clock, self.future = clock, Future[Tensor]()
        self.asked = self.finished = clock()

    def run(self) -> None:
        plan = self.plan
        if plan is None or not self.future.set_running_or_notify_cancel():
            return
        try:
            chunks = plan()
        except BaseException as error:  # whatever it is, it belongs to the one who waits for the result
            self.future.set_exception(error)
        else:
            self.finished = self.clock()
            self.future.set_result(chunks)

    def ready(self, step: int) -> bool:
        return self.future.done()

    def result(self) -> Tensor:
        return self.future.result()

    def delay(self, control_hz: float) -> int:
        return delay_steps(self.finished - self.asked, control_hz)

    def cancel(self) -> bool:
        never = self.future.cancel()
        if (
            never
        ):  # it stays in the queue, which behind a plan that never ends must not fill with observations
            self.plan = None
        return never


class Worker:
    """One thread that plans while the robot moves; its delay is measured.

    The thread is a daemon: a plan that never ends keeps neither `close` nor the program from ending.
    """

    def __init__(self, *, expected: int = 1, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start the thread.

        Args:
            expected: control steps that the first plan will take.
            clock: seconds, for delays.
        """
        self.expected, self.clock = expected, clock
        self._waiting: queue.SimpleQueue[_Running | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="planning", daemon=True)
        self._thread.start()

    def submit(self, plan: Plan, step: int) -> Pending:
        """Plan as soon as the plans before are done."""
        return self._begin(plan)

    def at_once(self, plan: Plan) -> Tensor:
        """Plan and wait."""
        return self._begin(plan).result()

    def close(self, timeout: float = 5.0) -> bool:
        """Begin no further plan, and wait for the one that runs.

        Args:
            timeout: seconds to wait.

        Returns:
            Whether the thread has ended.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                self._forget()
                self._waiting.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _forget(self) -> None:
        """Cancel what waits; the thread may take some of it at the same time."""
        with contextlib.suppress(queue.Empty):
            while True:
                if (running := self._waiting.get_nowait()) is not None:
                    running.cancel()

    def _begin(self, plan: Plan) -> _Running:
        running = _Running(plan, self.clock)
        with self._closing:  # what came behind the end of the queue would be waited for in vain
            if self._closed:
                raise ConfigError("this worker is closed and plans no more; make a new Worker")
            self._waiting.put(running)
        return running

    def _work(self) -> None:
        while (running := self._waiting.get()) is not None:
            running.run()
