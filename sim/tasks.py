"""Which tasks there are, and how to build one from its configuration."""

from collections.abc import Mapping
from typing import assert_never

from ..data.errors import ConfigError
from ..data.schema import nearest
from .manipulation.task import RobosuiteConfig
from .push_t import PushTConfig
from .push_t_human import PushTHumanConfig
from .task import Task

TaskConfig = PushTConfig | PushTHumanConfig | RobosuiteConfig

# Every task by name, with its defaults.
TASKS: Mapping[str, TaskConfig] = {
    "push_t": PushTConfig(),
    "push_t_language": PushTConfig(goals="two", images=True, image_size=32),
    "push_t_human": PushTHumanConfig(),
    "lift": RobosuiteConfig(task="lift"),
    "can": RobosuiteConfig(task="can"),
    "square": RobosuiteConfig(task="square"),
}


def task_name(config: TaskConfig) -> str:
    """What the task is called, `lift` for one."""
    match config:
        case PushTConfig():
            return "push_t" if config.goals == "centre" else "push_t_language"
        case PushTHumanConfig():
            return "push_t_human"
        case RobosuiteConfig():
            return config.task
        case _:
            assert_never(config)


def make_task(config: TaskConfig | str, *, worlds: int = 1) -> Task:
    """Build N worlds of a task.

    Args:
        config: a task's configuration, or its name for the defaults.
        worlds: how many worlds are stepped together.

    Raises:
        ConfigError: for an unknown name, with the nearest valid one.
    """
    if worlds < 1:
        raise ConfigError(f"worlds must be at least 1, got {worlds}")
    if isinstance(config, str):
        if config not in TASKS:
            raise ConfigError(f"unknown task {config!r}; {nearest(config, TASKS)}")
        return make_task(TASKS[config], worlds=worlds)
    match config:
        case PushTConfig():
            from .push_t import PushTWorlds

            return PushTWorlds(config, worlds=worlds)
        case PushTHumanConfig():
            from .push_t_human import PushTHuman

            return PushTHuman(config, worlds=worlds)
        case RobosuiteConfig():
            from .manipulation.task import RobosuiteWorlds

            return RobosuiteWorlds(config, worlds=worlds)
        case _:
            assert_never(config)
