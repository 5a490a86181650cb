"""Which tasks there are, and how to build one from its configuration."""

from typing import assert_never

from ..data.errors import ConfigError
from ..data.schema import nearest
from .push_t import PushTConfig
from .push_t_human import PushTHumanConfig
from .task import Task

TaskConfig = PushTConfig | PushTHumanConfig

_NAMES = {"push_t": PushTConfig, "push_t_human": PushTHumanConfig}


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
        if config not in _NAMES:
            raise ConfigError(f"unknown task {config!r}; {nearest(config, _NAMES)}")
        return make_task(_NAMES[config](), worlds=worlds)
    match config:
        case PushTConfig():
            from .push_t import PushTWorlds

            return PushTWorlds(config, worlds=worlds)
        case PushTHumanConfig():
            from .push_t_human import PushTHuman

            return PushTHuman(config, worlds=worlds)
        case _:
            assert_never(config)
