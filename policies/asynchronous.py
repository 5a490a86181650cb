"""Executing a chunk while the next one is computed.

A chunk is computed from an observation and arrives later. How much of it is skipped then is counted, never estimated:
as many actions as were executed since its observation. The same runner works for B worlds in simulation, where a
delay is injected, and on a robot, where a thread plans and the delay is measured.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, assert_never

import torch
from torch import Tensor

from ..data.errors import ConfigError
from .delivery import Delivery, Pending
from .guidance import ChunkGuide
from .planning import PlanningRunner
from .policy import GenerativePolicy, Policy
from .sampling import OwnSampler
from .scheduling import (
    DelayForecast,
    HardOverwrite,
    Mode,
    NaiveAsync,
    RealTimeChunking,
    Synchronous,
    TemporalMerge,
    check_delay,
)


@dataclass(frozen=True)
class _Request:
    """A plan under way for some worlds.

    Attributes:
        number: requests are numbered in the order of their observations.
        step: control step of the observation.
        worlds: (B,) bool.
        episode: (B,) which episode each world was in.
        executed: (B,) actions each world had executed.
        pending: the plan.
    """

    number: int
    step: int
    worlds: Tensor
    episode: Tensor
    executed: Tensor
    pending: Pending


class Asynchronous(PlanningRunner):
    """Execute the present chunk while the next is on its way; satisfies `Runner`.

    An episode begins when its first chunk is there. A world that has nothing to execute holds its last action, which
    for commanded positions means that it stands still. Chunks whose observation is not newer than that of the chunk
    under way are dropped, and so are chunks for a world that was reset.

    Attributes:
        forecast: the delay that frozen actions are counted with.
        steps: control steps, summed over worlds.
        held: those of them on which there was nothing to execute, and the last action was held.
        dropped: chunks that arrived and were of no use.
        given_up: requests, one per world, that had not arrived when patience ran out.
    """

    def __init__(
        self,
        policy: Policy,
        mode: Mode,
        delivery: Delivery,
        *,
        generator: torch.Generator,
        patience: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Run `policy`.

        Args:
            policy: its spec says O, H, E and where a chunk starts.
            mode: when a chunk is asked for and how it joins the one before.
            delivery: makes the plans; `SimulatedDelay` or `Worker`. `close` closes it.
            generator: source of the policy's randomness.
            patience: control steps after which a request is given up and made anew; None waits for ever.
            clock: seconds, for latencies.

        Raises:
            ConfigError: if the mode does not fit the policy or the expected delay.
        """
        super().__init__(policy, generator, 1, clock)
        if isinstance(mode, RealTimeChunking):
            _check_guidable(policy)
        if patience is not None and patience < 1:
            raise ConfigError(f"patience must be at least 1 control step, or None, got {patience}")
        check_delay(mode, policy.spec, delivery.expected)
        self.mode, self.delivery, self.patience = mode, delivery, patience
        self.forecast = DelayForecast(delivery.expected)
        self.steps = self.held = self.dropped = self.given_up = 0
        self._after = mode.after(policy.spec)
        self._step = self._requests_made = 0
        self._requests: list[_Request] = []
        self._allocate(0)

    def __enter__(self) -> Self:
        """The runner itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Wait for no further plan, and end the delivery."""
        self._forget_requests()
        self.delivery.close()

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget the past of these worlds, or of all of them, and the plans under way for them."""
        super().reset(worlds)
        if worlds is None:
            self._forget_requests()

    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The actions (B, A) for the present observations; raises what a plan under way has raised."""
        fresh = self._observe(observation)
        if len(self._age) != len(fresh):
            self._allocate(len(fresh))
        if fresh.any():
            self._begin(fresh)
        self._collect()
        if self._ask():
            self._collect()  # a plan may take no time
        self._step += 1
        return self._execute()

    def _allocate(self, batch: int) -> None:
        spec = self.policy.spec
        self._chunk = torch.zeros(batch, spec.horizon, spec.action_dim)
        self._last = torch.zeros(batch, spec.action_dim)  # the latest action
        count = partial(torch.zeros, batch, dtype=torch.long)
        self._age = count()  # actions executed since the observation of the chunk under way
        self._number = count()  # the request that brought it
        self._executed, self._episode = count(), count()
        self._asked, self._asked_at = count(), count()  # the newest request, and its control step
        self._waiting = torch.zeros(batch, dtype=torch.bool)

    def _forget_requests(self) -> None:
        for request in self._requests:
            request.pending.cancel()
        self._requests.clear()

    def _begin(self, fresh: Tensor) -> None:
        """First chunks, for worlds that do not move yet."""
        self._episode[fresh] += 1
        self._waiting[fresh] = False
        self._age[fresh] = self._executed[fresh] = 0
        self._number[fresh] = self._requests_made
        try:
            chunks = self.delivery.at_once(partial(self._draw, self._window(fresh)))
        except BaseException:
            self._fresh = fresh  # they have no chunk to execute: the next step begins them again
            raise
        self._chunk[fresh] = chunks.to(self._chunk)

    def _ask(self) -> bool:
        """Ask for new chunks where it is time; whether any were asked for."""
        self._lose_patience()
        due = ~self._waiting & (self._age >= self._after)
        if not due.any():
            return False
        self._requests_made += 1
        plan = partial(self._draw, self._window(due), **self._options(due))
        pending = self.delivery.submit(plan, self._step)
        self._requests.append(
            _Request(
                self._requests_made, self._step, due, self._episode.clone(), self._executed.clone(), pending
            )
        )
        self._waiting |= due
        self._asked[due], self._asked_at[due] = self._requests_made, self._step
        return True

    def _lose_patience(self) -> None:
        if self.patience is None:
            return
        late = self._waiting & (self._step - self._asked_at >= self.patience)
        if not late.any():
            return
        self.given_up += int(late.sum())
        self._waiting &= ~late
        numbers = set(self._asked[late].tolist())
        given_up = [r for r in self._requests if r.number in numbers]
        never = {r.number for r in given_up if r.pending.cancel()}
        # What had begun may still arrive before its successor; what is older than that is not waited for.
        oldest = min((r.number for r in given_up if r.number not in never), default=0)
        self._requests = [
            r for r in self._requests if r.number not in never and (r.number >= oldest or self._is_awaited(r))
        ]

    def _is_awaited(self, request: _Request) -> bool:
        return bool((self._waiting & request.worlds & (self._asked == request.number)).any())

    def _options(self, worlds: Tensor) -> dict[str, Any]:
        """What the policy is told of the chunks under way."""
        spec = self.policy.spec
        age = self._age[worlds]
        left = spec.horizon - age
        frozen = self.forecast.steps - spec.start  # rows of the new chunk that lie before its arrival
        match self.mode:
            case HardOverwrite():
                return {"prefix": self._ahead(worlds)[:, : max(0, min(frozen, int(left.min())))]}
            case RealTimeChunking(guidance=guidance):
                previous, d = self._ahead(worlds), min(frozen, spec.horizon)
                return {"guide": ChunkGuide.of(guidance, previous=previous, delay=d, end=left.clamp_min(0))}
            case Synchronous() | NaiveAsync() | TemporalMerge():
                return {}
            case _:
                assert_never(self.mode)

    def _ahead(self, worlds: Tensor) -> Tensor:
        """The chunks under way (b, H, A), row 0 due with the first action of a chunk asked for now; zeros at the end."""
        row = torch.arange(self.policy.spec.horizon) + self._age[worlds, None]
        return _rows(self._chunk[worlds], row)

    def _collect(self) -> None:
        """Take in every chunk that has arrived."""
        for request in [r for r in self._requests if r.pending.ready(self._step)]:
            self._requests.remove(request)
            current = request.worlds & (request.episode == self._episode)
            self._waiting &= ~(current & (self._asked == request.number))
            chunks = request.pending.result()
            self.forecast.add(request.pending.delay(self.policy.spec.control_hz))
            self._join(request, current, chunks)

    def _join(self, request: _Request, current: Tensor, chunks: Tensor) -> None:
        """Switch to new chunks (b, H, A), less the actions executed since their observation."""
        spec = self.policy.spec
        since = self._executed - request.executed
        useful = current & (request.number > self._number) & (since < spec.horizon + spec.start)
        self.dropped += int((request.worlds & ~useful).sum())
        new = chunks[useful[request.worlds]].to(self._chunk)
        if isinstance(self.mode, TemporalMerge):
            row = torch.arange(spec.horizon) + (self._age - since)[useful, None]
            merged = self.mode.old * _rows(self._chunk[useful], row) + (1 - self.mode.old) * new
            new = torch.where((row < spec.horizon)[..., None], merged, new)
        self._chunk[useful], self._age[useful] = new, since[useful]
        self._number[useful] = request.number

    def _execute(self) -> Tensor:
        spec = self.policy.spec
        row = self._age - spec.start
        moving = row < spec.horizon
        if isinstance(self.mode, Synchronous):
            moving = moving & ~self._waiting
        planned = self._chunk[torch.arange(len(row)), row.clamp_max(spec.horizon - 1)]
        action = torch.where(moving[:, None], planned, self._last)
        self._age += moving
        self._executed += moving
        self.steps += len(moving)
        self.held += int((~moving).sum())
        self._last = action
        return action.clone()


def _check_guidable(policy: Policy) -> None:
    """Raise now instead of at the second chunk."""
    if not isinstance(policy, GenerativePolicy):
        raise ConfigError(
            f"RealTimeChunking guides a generative policy; {type(policy).__name__} is none, use NaiveAsync, "
            "HardOverwrite or TemporalMerge"
        )
    if isinstance(policy.sampler, OwnSampler):
        raise ConfigError(
            f"RealTimeChunking cannot guide {type(policy.sampler).__name__}, which steps with no velocity; "
            "use DDIM, DDPM, DPMSolver, FlowEuler or FlowHeun, or NaiveAsync, HardOverwrite or TemporalMerge"
        )


def _rows(chunks: Tensor, row: Tensor) -> Tensor:
    """The rows (b, n) of chunks (b, H, A), zero beyond their end: (b, n, A)."""
    horizon = chunks.shape[1]
    picked = chunks[torch.arange(len(chunks))[:, None], row.clamp(0, horizon - 1)]
    return torch.where((row < horizon)[..., None], picked, 0.0)
