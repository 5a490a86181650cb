"""What a task is: N worlds stepped together, with a spec, a success predicate and a measure of progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.spec import Spec

Array = NDArray[Any]


@dataclass(frozen=True)
class Step:
    """What N worlds answer to one control step.

    Attributes:
        observation: key -> (N, *shape), as the task's spec describes it.
        reward: (N,) in 0..1; its best value is an episode's score.
        terminated: (N,) bool, the world has reached an end of its own.
        truncated: (N,) bool, the world has run for `max_steps` without one.
        success: (N,) bool, the success predicate holds now.
        score: (N,) in 0..1, the task's measure of progress now.
    """

    observation: dict[str, Array]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]
    score: NDArray[np.float64]


class Task(Protocol):
    """N worlds stepped together.

    Nothing resets by itself: a world that has ended may be stepped further, or ignored. World i depends on seeds[i]
    and its own actions only, so an episode is the same whatever runs beside it.
    """

    @property
    def spec(self) -> Spec:
        """The observation's and the action's fields and the control rate; window lengths are left at 1."""
        ...

    @property
    def worlds(self) -> int:
        """N."""
        ...

    @property
    def max_steps(self) -> int:
        """Control steps after which a world is truncated."""
        ...

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Start every world anew, world i from seeds[i] alone; the first observation."""
        ...

    def step(self, action: Array) -> Step:
        """Apply one action per world, (N, A) in the spec's units, for one control step."""
        ...

    def render(self, world: int, *, size: int = 256) -> NDArray[np.uint8]:
        """(size, size, 3) picture of one world."""
        ...

    def close(self) -> None:
        """Release threads and graphics contexts; closing twice is fine."""
        ...
