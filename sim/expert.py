"""An expert for `push_t`: sampling-based model-predictive control with the simulator itself as its model.

Every other control step it draws candidate plans (`pushes.py`), rolls all of them out in one native call, and follows
the cheapest. What remains of that plan is varied and kept among the next candidates, so that the motion stays smooth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from .batch import BatchedPhysics
from .push_t import SUBSTEPS, load_model
from .push_t_geometry import GOAL, OUTLINE, TIP_RADIUS, distance_to_block, transform
from .pushes import fresh_pushes, limited, variations

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The planner.

    Attributes:
        candidates: plans rolled out at a time.
        horizon: control steps per plan.
        replan: control steps between plans.
        fresh: share of the candidates that are new pushes; the rest vary the present plan.
        speed: fastest pusher motion, metres per control step.
        spread: size of the variations, metres.
        threads: native threads; 0 takes one per usable core.
    """

    candidates: int = 64
    horizon: int = 16
    replan: int = 2
    fresh: float = 0.5
    speed: float = 0.025
    spread: float = 0.01
    threads: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 2 or not 1 <= self.replan <= self.horizon:
            raise ConfigError(
                "candidates must be at least 2 and replan within 1..horizon, "
                f"got {self.candidates}, {self.replan} and horizon {self.horizon}"
            )
        if not 0 <= self.fresh <= 1 or self.speed <= 0 or self.spread <= 0:
            raise ConfigError(
                "fresh must lie in [0, 1], speed and spread above 0, "
                f"got {self.fresh}, {self.speed}, {self.spread}"
            )


class Expert:
    """Plans for one world at a time."""

    def __init__(self, config: ExpertConfig | None = None) -> None:
        """Allocate the worlds that candidates are rolled out in; `reset` before the first episode."""
        self.config = config or ExpertConfig()
        self._worlds = BatchedPhysics(
            load_model(),
            worlds=self.config.candidates,
            substeps=SUBSTEPS,
            threads=self.config.threads,
        )
        self._generator = np.random.default_rng(0)
        self._plan = np.zeros((0, 2))
        self._used = 0
        self._last = np.zeros((2, 2))
        self._goal = GOAL

    def reset(self, qpos: Array, generator: np.random.Generator, goal: Array = GOAL) -> None:
        """Begin an episode at positions (5,), block x, y, yaw, pusher x, y, with a goal's pose (3,)."""
        self._generator, self._goal = generator, goal
        self._plan = np.repeat(qpos[None, 3:], self.config.horizon, axis=0)
        self._used = self.config.replan
        self._last = np.repeat(qpos[None, 3:], 2, axis=0)

    def act(self, qpos: Array, qvel: Array) -> Array:
        """The pusher's next target (2,), from positions (5,) and velocities (5,)."""
        if self._used >= self.config.replan:
            rest = self._plan[self._used :] if self._used < len(self._plan) else self._plan[-1:]
            self._plan = self._best(
                qpos, qvel, np.concatenate([rest, np.repeat(rest[-1:], self._used, axis=0)])
            )
            self._used = 0
        target = self._plan[self._used]
        self._used += 1
        self._last = np.stack([self._last[1], target])
        return target

    def close(self) -> None:
        """Stop the threads."""
        self._worlds.close()

    def _best(self, qpos: Array, qvel: Array, plan: Array) -> Array:
        config = self.config
        count = round(config.candidates * config.fresh)
        plan = plan[: config.horizon]
        kept = variations(self._generator, plan, count=config.candidates - count, spread=config.spread)
        new = fresh_pushes(self._generator, qpos, count=count, steps=config.horizon, speed=config.speed)
        plans = limited(np.concatenate([kept, new]), self._last[1], speed=config.speed)
        self._worlds.place(np.broadcast_to(qpos, (len(plans), 5)), np.broadcast_to(qvel, (len(plans), 5)))
        states = self._worlds.play(plans)
        return plans[int(np.argmin(self._cost(plans, states)))]

    def _cost(self, plans: Array, states: Array) -> Array:
        """Metres, roughly, of each plan (n, T, 2) with its states (n, T, S)."""
        pose, pusher = states[:, :, 1:4], states[:, :, 4:6]
        away = distance_to_goal(pose, self._goal)
        # The logarithm keeps millimetres worth having when the block is nearly there.
        away = away + 0.02 * np.log1p(away / 0.004)
        reach = np.maximum(distance_to_block(pose, pusher) - TIP_RADIUS - 0.01, 0.0)
        path = np.concatenate([np.broadcast_to(self._last, (len(plans), 2, 2)), plans], axis=1)
        velocity = np.diff(path, axis=1)
        jerkiness = (np.diff(velocity, axis=1) ** 2).sum(axis=-1).mean(axis=1) / self.config.speed
        effort = np.linalg.norm(velocity, axis=-1).mean(axis=1)
        return away.mean(1) + 2 * away[:, -1] + 0.1 * reach.mean(1) + jerkiness + 0.03 * effort


def distance_to_goal(pose: Array, goal: Array = GOAL) -> Array:
    """Root mean square distance in metres of the block's corners at poses (..., 3) from those of goals (3,) or (..., 3)."""
    offset = transform(pose, OUTLINE) - transform(goal, OUTLINE)
    return np.sqrt((offset**2).sum(axis=-1).mean(axis=-1))
