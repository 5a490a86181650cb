"""Chunks that arrive late, on policies whose actions say when they were planned and for when."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.asynchronous import Asynchronous
from sensorimotor.policies.delivery import SimulatedDelay
from sensorimotor.policies.execution import RecedingHorizon
from sensorimotor.policies.guidance import ChunkGuide, Guidance
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.sampling import OwnSampler
from sensorimotor.policies.scheduling import (
    HardOverwrite,
    Mode,
    NaiveAsync,
    RealTimeChunking,
    Synchronous,
    TemporalMerge,
    delay_steps,
)

MODES: tuple[Mode, ...] = (Synchronous(), NaiveAsync(), HardOverwrite(), TemporalMerge())


class Diary(Policy):
    """Action i is [what was observed, i + start + what was observed]: when it was planned, and for when."""

    def __init__(self, *, horizon: int = 8, execute: int = 4, start: int = 0) -> None:
        super().__init__(
            Spec(
                observation={"state": Field(shape=(1,))},
                action=Field(shape=(2,)),
                control_hz=10,
                observation_steps=1 - start,
                horizon=horizon,
                execute=execute,
                start=start,
            )
        )
        self.asked: list[Tensor] = []
        self.told: list[dict[str, Any]] = []

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        self.check_prefix(prefix, self.check_observation(observation))
        now = observation["state"][:, -1, 0]
        self.asked.append(now.clone())
        self.told.append(options | ({} if prefix is None else {"prefix": prefix.clone()}))
        due = now[:, None] + self.spec.start + torch.arange(self.spec.horizon)
        return torch.stack([now[:, None].expand_as(due), due], dim=-1)[:, None]


def run(
    policy: Policy, mode: Mode, delay: int | Sequence[int | None], steps: int, **options: Any
) -> tuple[Tensor, Asynchronous]:
    """The actions (steps, 2) of one world in which the observation is the time."""
    runner = asynchronous(policy, mode, delay, **options)
    return torch.stack([runner.act(observe(t))[0] for t in range(steps)]), runner


def asynchronous(
    policy: Policy, mode: Mode, delay: int | Sequence[int | None], **options: Any
) -> Asynchronous:
    generator = torch.Generator().manual_seed(0)
    return Asynchronous(policy, mode, SimulatedDelay(delay), generator=generator, **options)


def observe(*values: float) -> dict[str, Tensor]:
    return {"state": torch.tensor(values, dtype=torch.float32).view(-1, 1)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("start", [0, -1])
def test_without_delay_every_mode_is_receding_horizon(mode: Mode, start: int) -> None:
    delayed = asynchronous(Diary(start=start), mode, 0)
    plain = RecedingHorizon(Diary(start=start), generator=torch.Generator())
    for t in range(14):
        now = observe(t, 2 * t)
        expected = plain.act(now)
        # Where both chunks speak of the same moment, an average of when they were planned is no receding horizon.
        rows = slice(1, 2) if isinstance(mode, TemporalMerge) else slice(0, 2)
        torch.testing.assert_close(delayed.act(now)[:1, rows], expected[:1, rows])
    assert delayed.held == 0


@pytest.mark.parametrize("start", [0, -1, -2])
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_actions_executed_since_the_observation_are_skipped(delay: int, start: int) -> None:
    actions, runner = run(Diary(horizon=10, start=start), NaiveAsync(every=4), delay, 30)
    assert actions[:, 1].tolist() == list(
        range(30)
    )  # every action is executed at the time it was planned for
    planned = [0 if t < 4 + delay else 4 + 4 * ((t - delay - 4) // 4) for t in range(30)]
    assert actions[:, 0].tolist() == planned
    assert runner.held == 0


def test_a_request_waits_for_the_chunk_before_it() -> None:
    policy = Diary(horizon=10)
    run(policy, NaiveAsync(every=2), 3, 20)
    assert [t.item() for t in policy.asked] == [0, 2, 5, 8, 11, 14, 17]


@pytest.mark.parametrize(("length", "latency"), [(8, 3), (5, 5), (10, 1)])
def test_stopping_to_wait_idles_for_the_latency_in_every_chunk(length: int, latency: int) -> None:
    policy, cycles = Diary(horizon=length, execute=1), 6
    actions, runner = run(policy, Synchronous(every=length), latency, length + cycles * (latency + length))
    assert runner.held == cycles * latency
    share = runner.held / (runner.steps - length)  # the first chunk is there from the start
    assert share == pytest.approx(latency / (latency + length))
    assert actions[length : length + latency].tolist() == [actions[length - 1].tolist()] * latency
    assert actions[length + latency].tolist() == [length, length]  # nothing was executed, nothing is skipped


@pytest.mark.parametrize("length", [8, 9])
@pytest.mark.parametrize("latency", range(1, 9))
@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.7, 0.95])
def test_asynchronous_execution_never_idles_just_when_chunks_are_long_enough_and_asked_for_in_time(
    length: int, latency: int, threshold: float
) -> None:
    _, runner = run(Diary(horizon=length, execute=1), NaiveAsync(threshold=threshold), latency, 12 * length)
    enough = threshold * length >= latency and 2 * latency <= length
    assert (runner.held == 0) == enough


@pytest.mark.parametrize(("left", "idles"), [(16, False), (15, False), (14, True)])
def test_a_server_of_300_ms_never_starves_a_robot_of_50_hz_that_asks_in_time(left: int, idles: bool) -> None:
    late = delay_steps(0.3, 50)
    _, runner = run(Diary(horizon=50, execute=1), NaiveAsync(threshold=left / 50), late, 300)
    assert (runner.held > 0) == idles


def test_a_chunk_that_runs_out_is_held_at_its_last_action_until_the_next_arrives() -> None:
    actions, runner = run(Diary(horizon=4, execute=4), NaiveAsync(every=3), 3, 10)
    # Asked for at 3 with one action left: that one is executed and skipped, two steps are held.
    assert actions[:, 1].tolist() == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6]
    assert actions[6:9, 0].tolist() == [3, 3, 3]
    assert runner.held == 3
    assert runner.steps == 10


def test_a_merge_weighs_old_and_new() -> None:
    class Steady(Diary):
        def sample(self, observation: Mapping[str, Tensor], **options: Any) -> Tensor:
            chunk = super().sample(observation, **options)
            return torch.full_like(chunk, float(len(self.asked)))

    actions, _ = run(Steady(horizon=8), TemporalMerge(every=4), 2, 10)
    assert actions[:6, 0].tolist() == [1] * 6
    assert actions[6:8, 0].tolist() == pytest.approx([1.7, 1.7])  # 0.3 * 1 + 0.7 * 2
    assert actions[8:, 0].tolist() == [2, 2]  # the old chunk does not reach this far


@pytest.mark.parametrize("start", [0, -1])
def test_merged_chunks_agree_on_the_moment_they_speak_of(start: int) -> None:
    actions, _ = run(Diary(horizon=9, start=start), TemporalMerge(every=3, old=0.5), 2, 25)
    torch.testing.assert_close(actions[:, 1], torch.arange(25.0))


def test_a_merge_without_the_old_chunk_is_a_switch() -> None:
    merged, _ = run(Diary(), TemporalMerge(old=0.0), 2, 20)
    switched, _ = run(Diary(), NaiveAsync(), 2, 20)
    assert torch.equal(merged, switched)


@pytest.mark.parametrize("start", [0, -1])
def test_committed_actions_are_those_that_will_be_executed_until_arrival(start: int) -> None:
    policy = Diary(horizon=10, start=start)
    run(policy, HardOverwrite(every=4), 3, 6)
    prefix = policy.told[1]["prefix"][0]
    assert prefix.tolist() == [[0, t] for t in range(4 + start, 4 + 3)]  # what is past comes first


@pytest.mark.parametrize("start", [0, -1])
def test_a_guide_is_the_chunk_under_way_seen_from_the_new_observation(gaussian: Callable, start: int) -> None:
    class Told(type(gaussian(0.0, 0.1))):
        def __init__(self) -> None:
            super().__init__(0.0, 0.1, horizon=10)
            self.spec = self.spec.chunked(observation_steps=1 - start, horizon=10, execute=4, start=start)
            self.told: list[ChunkGuide | None] = []

        def sample(self, observation: Mapping[str, Tensor], **options: Any) -> Tensor:
            self.told.append(options.get("guide"))
            now = observation["state"][:, -1, 0]
            return (now[:, None] + start + torch.arange(10))[:, None, :, None]

    policy = Told()
    mode = RealTimeChunking(every=4, guidance=Guidance(beta=7.0, schedule="linear", jacobian="identity"))
    actions, _ = run(policy, mode, 3, 30)
    assert actions[:, 0].tolist() == list(range(30))
    assert policy.told[0] is None
    for n, guide in enumerate(policy.told[1:], start=1):
        assert guide is not None
        assert (guide.beta, guide.schedule, guide.jacobian) == (7.0, "linear", "identity")
        assert guide.delay == 3 - start
        assert torch.as_tensor(guide.end).tolist() == [6]
        assert guide.previous[0, :6, 0].tolist() == [4 * n + start + i for i in range(6)]
        assert not guide.previous[0, 6:].any()


@pytest.mark.parametrize("jacobian", ["vjp", "identity"])
def test_guided_chunks_stay_with_the_choice_that_switching_makes_anew(
    gaussian: Callable, jacobian: Any
) -> None:
    class TwoWays(type(gaussian(0.0, 0.1))):
        """Chunks are all +0.5 or all -0.5, with a little noise; known in closed form."""

        def _clean_and_noise(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            variance = (1 - s) ** 2 * self.variance + s**2
            way = torch.tanh((1 - s) * x.sum(dim=(1, 2), keepdim=True) * 0.5 / variance)
            self.mean = 0.5 * way
            return super()._clean_and_noise(x, s)

    def changed(mode: Mode) -> float:
        runner = asynchronous(TwoWays(0.0, 0.001, horizon=8), mode, 3)
        ways = torch.stack([runner.act(observe(*[0.0] * 100))[:, 0].sign() for _ in range(8)])
        return (ways[7] != ways[0]).float().mean().item()

    assert 0.35 < changed(NaiveAsync(every=4)) < 0.65
    guidance = Guidance(beta=10.0, schedule="linear", jacobian=jacobian)
    assert changed(RealTimeChunking(every=4, guidance=guidance)) <= 0.1


def test_worlds_that_are_reset_start_at_once_and_the_others_go_on() -> None:
    runner = asynchronous(Diary(horizon=10), NaiveAsync(every=4), 3)
    for t in range(6):
        runner.act(observe(t, 100 + t))
    runner.reset(torch.tensor([1]))  # its chunk of 104 is under way
    actions = torch.stack([runner.act(observe(t, 200 + t)) for t in range(6, 16)])
    assert actions[:, 0, 1].tolist() == list(range(6, 16))
    assert actions[:, 1, 1].tolist() == [206 + i for i in range(10)]
    assert actions[1, 0, 0].item() == 4
    assert actions[1, 1, 0].item() == 206  # not the chunk of before
    assert runner.dropped == 1


def test_a_full_reset_forgets_plans_under_way_and_how_many_worlds_there_were() -> None:
    runner = asynchronous(Diary(), NaiveAsync(), 3)
    for t in range(5):
        runner.act(observe(t, t))
    runner.reset()
    actions = torch.stack([runner.act(observe(50 + t, 60 + t, 70 + t)) for t in range(4)])
    assert actions[:, :, 1].tolist() == [[50 + t, 60 + t, 70 + t] for t in range(4)]


def test_a_world_behaves_as_if_it_were_alone() -> None:
    values = torch.arange(40.0).view(20, 2).square()
    together, alone = (asynchronous(Diary(), TemporalMerge(every=3), 2) for _ in range(2))
    for row in values:
        pair, one = together.act(observe(*row.tolist())), alone.act(observe(float(row[1])))
        assert torch.equal(pair[1:], one)


def test_a_chunk_that_never_arrives_is_waited_for_or_given_up() -> None:
    actions, runner = run(Diary(horizon=6), NaiveAsync(every=4), [None, 1], 20)
    assert actions[6:, 1].tolist() == [5] * 14
    assert runner.held == 14
    actions, runner = run(Diary(horizon=6), NaiveAsync(every=4), [None, 1], 20, patience=5)
    assert actions[6:10, 1].tolist() == [5] * 4  # held; given up at 9, asked again, there at 10
    assert actions[10:14, 1].tolist() == [9, 10, 11, 12]  # observed at 9, nothing of it executed since
    assert runner.given_up == 1
    assert runner.held == 4


def test_a_late_chunk_is_used_before_its_successor_and_dropped_after_it() -> None:
    policy = Diary(horizon=12)
    actions, runner = run(policy, NaiveAsync(every=4), [4, 4, 1], 9, patience=3)
    assert [t.item() for t in policy.asked] == [0, 4, 7]
    assert actions[8, 0].item() == 4  # given up at 7, arrived at 8 before its successor
    assert runner.dropped == 0
    policy = Diary(horizon=12)
    actions, runner = run(policy, NaiveAsync(every=4), [5, 1, 30], 11, patience=3)
    assert [t.item() for t in policy.asked] == [0, 4, 7]
    assert actions[7:, 0].tolist() == [0, 7, 7, 7]  # the chunk of 4 came out of order, at 9
    assert actions[:, 1].tolist() == list(range(11))
    assert (runner.dropped, runner.given_up) == (1, 1)


def test_what_does_not_fit_is_refused_before_anything_moves(gaussian: Callable) -> None:
    unguided = gaussian(0.0, 1.0, horizon=8)
    unguided.sampler = OwnSampler()
    with pytest.raises(ConfigError, match="cannot guide OwnSampler, which steps with no velocity; use DDIM"):
        asynchronous(unguided, RealTimeChunking(every=4), 1)
    with pytest.raises(ConfigError, match="Diary is none, use NaiveAsync"):
        asynchronous(Diary(), RealTimeChunking(), 1)
    with pytest.raises(ConfigError, match="patience must be at least 1"):
        asynchronous(Diary(), NaiveAsync(), 1, patience=0)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        SimulatedDelay(-1)


def test_the_constraint_of_real_time_chunking_is_checked_at_the_start(gaussian: Callable) -> None:
    with pytest.raises(ConfigError, match="a delay of 5 steps does not fit"):
        asynchronous(gaussian(0.0, 1.0, horizon=8), RealTimeChunking(every=4), 5)
