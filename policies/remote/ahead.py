"""Ask for the next chunk while the present one is executed, so that a slow policy never leaves the robot idle.

A chunk belongs to the control step it was asked at: what of it is already past when it comes is dropped, and where two
chunks overlap they are blended (as in LeRobot's asynchronous client). With a latency of L steps and chunks of H
actions the robot never idles if the request goes out with at least L actions left and 2 L <= H; otherwise no
threshold helps: shorten the latency or lengthen the chunk.
"""

import concurrent.futures
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.errors import ConfigError, RemoteError, SpecError
from ..policy import Policy

Submit = Callable[[Mapping[str, Tensor]], "concurrent.futures.Future[Tensor]"]


def delay_steps(latency_s: float, control_hz: float) -> int:
    """Control steps that pass during a latency, rounded up; 0.2 s at 25 Hz are 5, whatever floats say."""
    return math.ceil(latency_s * control_hz - 1e-9)


def merge(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """Two opinions about the same actions: (1 - weight) old + weight new."""
    return (1 - weight) * old + weight * new


@dataclass(frozen=True, kw_only=True)
class AheadConfig:
    """When to ask, and how chunks meet.

    Attributes:
        ask_at: ask when at most this share of a chunk's H actions is left.
        new_weight: of the newer chunk where two overlap; 1 takes the newer one alone.
        deadline_s: how long an empty queue waits for the chunk that was asked for.
    """

    ask_at: float = 0.5
    new_weight: float = 0.7
    deadline_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("ask_at", "new_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.deadline_s < math.inf:
            raise ConfigError(f"deadline_s must be positive and finite, got {self.deadline_s}")


class ActionQueue:
    """Actions by control step; what a newer chunk does not cover is forgotten when it comes."""

    def __init__(self, new_weight: float) -> None:
        """Begin empty."""
        self.new_weight = new_weight
        self._first, self._actions = 0, torch.zeros(0)  # control step of the first action; (n, A)

    def left(self, step: int) -> int:
        """Actions from a control step on."""
        return max(0, self._first + len(self._actions) - max(step, self._first))

    def put(self, chunk: Tensor, asked_at: int, step: int) -> None:
        """Take in a chunk (H, A) whose first action was for the step it was asked at; it is `step` now."""
        fresh = chunk[max(0, step - asked_at) :].clone()
        begin = max(step, asked_at)
        if both := min(self.left(begin), len(fresh)):
            offset = begin - self._first
            fresh[:both] = merge(self._actions[offset : offset + both], fresh[:both], self.new_weight)
        if len(fresh):
            self._first, self._actions = begin, fresh

    def action(self, step: int) -> Tensor | None:
        """The action (A,) for a control step, or None if there is none."""
        return self._actions[step - self._first] if self.left(step) and step >= self._first else None


class AskAhead:
    """A `Runner` for one robot, on any policy that answers with futures, such as `RemotePolicy.submit`.

    Attributes:
        starved: control steps at which there was no action and the robot had to wait.
    """

    def __init__(self, policy: Policy, submit: Submit, config: AheadConfig | None = None) -> None:
        """Run a policy whose chunks start now.

        Args:
            policy: its spec says O and H.
            submit: asks for chunks (1, K, H, A); the first is executed.
            config: when to ask.
        """
        if policy.spec.start != 0:
            raise SpecError(f"asking ahead needs chunks that start at now, got start {policy.spec.start}")
        self.policy, self.submit, self.config = policy, submit, config or AheadConfig()
        self.starved = 0
        self.reset()

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget the past; a chunk that was asked for before is not taken in."""
        self._queue = ActionQueue(self.config.new_weight)
        self._step, self._asked_at = 0, 0
        self._answer: concurrent.futures.Future[Tensor] | None = None
        self._window: dict[str, Tensor] = {}

    def act(self, observation: Mapping[str, Tensor]) -> Tensor:
        """The action (1, A) for the present observation, key -> (1, *shape).

        Raises:
            RemoteError: if there is no action and none came in time, or the answer was an error; the next call asks
                again. Actions still queued are executed first.
        """
        self._observe(observation)
        step, horizon = self._step, self.policy.spec.horizon
        self._collect(wait=False)
        if self._answer is None and self._queue.left(step) <= self.config.ask_at * horizon:
            self._answer, self._asked_at = self.submit(dict(self._window)), step
            self._collect(wait=False)
        if self._queue.left(step) == 0:
            self.starved += step > 0  # the very first chunk cannot be there already
            self._collect(wait=True)
        action = self._queue.action(step)
        if action is None:
            raise RemoteError(f"no action for control step {step}: the chunk that came ended before it")
        self._step += 1
        return action[None]

    def _collect(self, *, wait: bool) -> None:
        """Take in the chunk that was asked for, if it is there; an error is raised only if nothing else is left."""
        if self._answer is None or not (wait or self._answer.done()):
            return
        try:
            chunks = self._answer.result(self.config.deadline_s if wait else 0)
        except concurrent.futures.TimeoutError as error:
            raise RemoteError(f"no chunk came within {self.config.deadline_s:g} s") from error
        except RemoteError:
            if wait or self._queue.left(self._step) == 0:
                raise
            return
        finally:
            self._answer = None
        self._queue.put(chunks[0, 0], self._asked_at, self._step)

    def _observe(self, observation: Mapping[str, Tensor]) -> None:
        for key in self.policy.spec.observation:
            if key not in observation or len(observation[key]) != 1:
                raise SpecError(f"observation {key!r} must be there for exactly one robot, as (1, *shape)")
            now = observation[key].unsqueeze(1)
            steps = self.policy.spec.observation_steps
            past = self._window.get(key, now.repeat_interleave(steps, dim=1))
            self._window[key] = torch.cat([past[:, 1:], now], dim=1)
