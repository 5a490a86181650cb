"""Asking ahead, on a clock that only the test moves: no test here waits."""

import concurrent.futures
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError, RemoteError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.remote.ahead import ActionQueue, AheadConfig, AskAhead, delay_steps, merge

Future = concurrent.futures.Future


@pytest.mark.parametrize(
    ("latency_s", "hz", "steps"),
    [(0.086, 50, 5), (0.2, 25, 5), (0.36, 30, 11), (0.12, 30, 4), (0, 50, 0), (0.3, 50, 15), (0.1, 30, 3)],
)
def test_delays_round_up_to_control_steps(latency_s: float, hz: float, steps: int) -> None:
    assert delay_steps(latency_s, hz) == steps


def test_overlaps_are_blended() -> None:
    assert merge(torch.tensor(1.0), torch.tensor(2.0), 0.7).item() == pytest.approx(1.7)


def chunk(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def actions(queue: ActionQueue, steps: range) -> list[float | None]:
    found = [queue.action(step) for step in steps]
    return [None if a is None else round(a.item(), 6) for a in found]


def test_a_queue_drops_what_is_past_and_blends_what_overlaps() -> None:
    queue = ActionQueue(0.7)
    queue.put(chunk(0, 1, 2, 3), asked_at=0, step=0)
    assert actions(queue, range(6)) == [0, 1, 2, 3, None, None]
    queue.put(chunk(9, 10, 11, 12), asked_at=1, step=2)  # its 9 was for step 1, which is past
    assert actions(queue, range(2, 6)) == pytest.approx([0.3 * 2 + 0.7 * 10, 0.3 * 3 + 0.7 * 11, 12, None])
    assert (queue.left(2), queue.left(4), queue.left(5), queue.left(9)) == (3, 1, 0, 0)


def test_what_a_shorter_newer_chunk_does_not_cover_is_forgotten() -> None:
    queue = ActionQueue(1.0)
    queue.put(chunk(0, 1, 2, 3), asked_at=0, step=0)
    queue.put(chunk(7, 8), asked_at=1, step=1)
    assert actions(queue, range(1, 4)) == [7, 8, None]


def test_a_chunk_that_came_too_late_changes_nothing() -> None:
    queue = ActionQueue(0.5)
    queue.put(chunk(0, 1, 2, 3), asked_at=0, step=0)
    queue.put(chunk(7, 8), asked_at=0, step=2)
    assert actions(queue, range(2, 4)) == [2, 3]


class Counting(Policy):
    """Chunks that hold the control steps they are for: the state is the step."""

    def __init__(self, horizon: int, hz: float = 50.0, start: int = 0) -> None:
        super().__init__(
            Spec(
                observation={"state": Field(shape=(1,))},
                action=Field(shape=(1,)),
                control_hz=hz,
                observation_steps=2,
                horizon=horizon,
                start=start,
            )
        )

    def sample(self, observation: Mapping[str, Tensor], **rest: object) -> Tensor:
        now = observation["state"][:, -1, :, None]
        return (now + torch.arange(float(self.spec.horizon)))[:, None, :].mT.reshape(len(now), 1, -1, 1)


class Waited(Future):
    """A future of a simulated server: waiting for it lets simulated time pass."""

    def __init__(self, server: "Simulated") -> None:
        super().__init__()
        self.server = server

    def result(self, timeout: float | None = None) -> Tensor:
        while not self.done():
            self.server.idle += 1
            self.server.tick()
        return super().result(0)


class Simulated:
    """A server with a latency in control steps, on a clock that moves by control steps."""

    def __init__(self, policy: Policy, latency: int) -> None:
        self.policy, self.latency = policy, latency
        self.now, self.idle = 0, 0  # control steps since the start, and those in which the robot waited
        self.under_way: tuple[int, Waited, Tensor] | None = None

    def submit(self, observation: Mapping[str, Tensor]) -> Future:
        assert self.under_way is None, "one request at a time"
        future = Waited(self)
        self.under_way = (self.now + self.latency, future, self.policy.sample(observation))
        return future

    def tick(self) -> None:
        self.now += 1
        if self.under_way and self.now >= self.under_way[0]:
            _, future, chunks = self.under_way
            self.under_way = None
            future.set_result(chunks)


def idle_share(*, latency: int, horizon: int, ask_at: float, steps: int = 600) -> tuple[float, int]:
    """Share of control steps in which the robot waited for more than the first chunk, and the runner's own count."""
    policy = Counting(horizon)
    server = Simulated(policy, latency)
    runner = AskAhead(policy, server.submit, AheadConfig(ask_at=ask_at))
    for step in range(steps):
        action = runner.act({"state": torch.tensor([[float(step)]])})
        assert action.item() == pytest.approx(step), "every step gets the action meant for it"
        server.tick()
    return (server.idle - latency) / (steps + server.idle - latency), runner.starved


LATENCY = delay_steps(0.3, 50)  # 15


@pytest.mark.parametrize("threshold", [16, 20, 25, 40])
def test_300_ms_at_50_hz_with_chunks_of_50_never_starve(threshold: int) -> None:
    assert idle_share(latency=LATENCY, horizon=50, ask_at=threshold / 50) == (0, 0)


@pytest.mark.parametrize("threshold", [0, 5, 14])
def test_asking_with_fewer_actions_left_than_the_latency_starves(threshold: int) -> None:
    share, starved = idle_share(latency=LATENCY, horizon=50, ask_at=threshold / 50)
    assert share > 0
    assert starved > 0


def test_asking_only_when_nothing_is_left_idles_latency_over_latency_plus_chunk() -> None:
    share, _ = idle_share(latency=LATENCY, horizon=50, ask_at=0.0, steps=5000)
    assert share == pytest.approx(15 / (15 + 50), abs=0.01)


@pytest.mark.parametrize(("horizon", "starves"), [(30, False), (29, True), (20, True)])
def test_no_threshold_helps_a_latency_beyond_half_a_chunk(horizon: int, starves: bool) -> None:
    assert (idle_share(latency=LATENCY, horizon=horizon, ask_at=1.0)[0] > 0) == starves


def ready(value: Tensor) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


def test_a_failed_request_keeps_the_queue_running_and_is_asked_again() -> None:
    policy, failing = Counting(4), [False]

    def submit(observation: Mapping[str, Tensor]) -> Future:
        if not failing[0]:
            return ready(policy.sample(observation))
        future: Future = Future()
        future.set_exception(RemoteError("the server is gone"))
        return future

    runner = AskAhead(policy, submit, AheadConfig(ask_at=0.5))
    assert runner.act({"state": torch.zeros(1, 1)}).item() == 0
    failing[0] = True
    assert [runner.act({"state": torch.zeros(1, 1)}).item() for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(RemoteError, match="the server is gone"):
            runner.act({"state": torch.zeros(1, 1)})
    failing[0] = False
    assert runner.act({"state": torch.full((1, 1), 40.0)}).item() == 40


def test_an_answer_that_never_comes_ends_at_the_deadline() -> None:
    policy = Counting(4)
    runner = AskAhead(policy, lambda observation: Future(), AheadConfig(deadline_s=0.01))
    with pytest.raises(RemoteError, match=r"no chunk came within 0.01 s"):
        runner.act({"state": torch.zeros(1, 1)})


def test_a_chunk_asked_for_before_a_reset_is_not_executed() -> None:
    policy, first = Counting(4), Future()
    answers = iter([first, ready(policy.sample({"state": torch.full((1, 2, 1), 5.0)}))])
    runner = AskAhead(policy, lambda observation: next(answers), AheadConfig(deadline_s=1.0))
    runner._observe({"state": torch.zeros(1, 1)})
    runner._answer = runner.submit({})
    runner.reset()
    first.set_result(torch.full((1, 1, 4, 1), -1.0))
    assert runner.act({"state": torch.full((1, 1), 5.0)}).item() == 5


def test_only_one_robot_and_chunks_from_now_on() -> None:
    with pytest.raises(SpecError, match="exactly one robot"):
        AskAhead(Counting(4), lambda o: Future()).act({"state": torch.zeros(2, 1)})
    with pytest.raises(SpecError, match="start at now, got start -1"):
        AskAhead(Counting(4, start=-1), lambda o: Future())


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ask_at must lie in \[0, 1\], got 1.5"):
        AheadConfig(ask_at=1.5)
    with pytest.raises(ConfigError, match="deadline_s must be positive"):
        AheadConfig(deadline_s=0)
