"""Who demonstrates which task."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from .expert import Expert, ExpertConfig
from .manipulation.task import RobosuiteConfig, RobosuiteWorlds
from .manipulation.waypoints import Waypoints, WaypointsConfig
from .push_t import PushTConfig, PushTWorlds
from .task import Task
from .tasks import TaskConfig, task_name

DemonstratorConfig = ExpertConfig | WaypointsConfig


def expert_of(task: TaskConfig) -> DemonstratorConfig:
    """The expert of a task, with its defaults; that of `push_t` for tasks without one."""
    return WaypointsConfig() if isinstance(task, RobosuiteConfig) else ExpertConfig()


class Demonstrator(Protocol):
    """Acts in world 0 of the task it was made for, knowing everything about it."""

    def reset(self, generator: np.random.Generator) -> None:
        """Begin an episode from the world's present state."""
        ...

    def act(self) -> NDArray[Any]:
        """The next action (A,)."""
        ...

    def close(self) -> None:
        """Release what it holds; the worlds are not its own."""
        ...


def make_demonstrator(task: TaskConfig, config: DemonstratorConfig) -> tuple[Task, Demonstrator]:
    """One world of a task, and an expert in it.

    Raises:
        ConfigError: for a task without an expert, or with another one.
    """
    match task, config:
        case PushTConfig(), ExpertConfig():
            world = PushTWorlds(task, worlds=1)
            return world, _Pusher(world, Expert(config))
        case RobosuiteConfig(), WaypointsConfig():
            world = RobosuiteWorlds(task, worlds=1)
            return world, Waypoints(config, world)
        case PushTConfig() | RobosuiteConfig(), _:
            raise ConfigError(
                f"{task_name(task)} is not demonstrated by {type(config).__name__}; expert={task_name(task)} is"
            )
        case _:
            raise ConfigError(
                f"{task_name(task)} has no expert; use task=push_t, push_t_language, lift, can or square"
            )


class _Pusher:
    """The planner of `push_t`, which wants positions and velocities."""

    def __init__(self, world: PushTWorlds, planner: Expert) -> None:
        self._world, self._planner = world, planner

    def reset(self, generator: np.random.Generator) -> None:
        self._planner.reset(self._world.physics.qpos[0].copy(), generator, self._world.goals[0])

    def act(self) -> NDArray[np.float64]:
        physics = self._world.physics
        return self._planner.act(physics.qpos[0].copy(), physics.qvel[0].copy())

    def close(self) -> None:
        self._planner.close()
