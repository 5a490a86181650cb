"""Policies that a command makes one of: opened, named, and the task they were trained for."""

from collections.abc import Sequence
from pathlib import Path

from ..configs.typed import build
from ..data.errors import ConfigError
from ..policies.factory import is_address
from ..policies.policy import Policy
from ..sim.tasks import TaskConfig
from .runs import read_yaml


def names_of(paths: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """What members are called: as wanted, or else the last part of their paths that tells them apart."""
    if wanted is not None:
        names = list(wanted)
    else:
        names = [path if is_address(path) else Path(path).resolve().name for path in paths]
        names = [
            name if names.count(name) == 1 else f"{Path(path).resolve().parent.name}/{name}"
            for name, path in zip(names, paths, strict=True)
        ]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            f"two members are called {min(twice)!r}; give names=[...], one different name for each"
        )
    return names


def stored_task(path: str) -> TaskConfig | None:
    """The task in the configuration of the run that a path means, if there is one."""
    if is_address(path):
        return None
    folder = Path(path).parent if Path(path).is_file() else Path(path)
    for place in (folder, folder.parent, folder.parent.parent):
        values = read_yaml(place / "config.yaml").get("task")
        if isinstance(values, dict):
            return build(TaskConfig, values, where="task")
    return None


def task_of(task: TaskConfig | None, paths: Sequence[str]) -> TaskConfig:
    """The task that was named, or else the one of the first path that knows its own.

    Raises:
        ConfigError: if there is none.
    """
    found = task or next((known for path in paths if (known := stored_task(path)) is not None), None)
    if found is None:
        raise ConfigError(f"{', '.join(paths)} do not say their task; give one, as in task=push_t")
    return found


def describe_members(names: Sequence[str], policies: Sequence[Policy]) -> str:
    """`flow (FlowPolicy) and diffusion (DiffusionPolicy)`."""
    told = [f"{name} ({type(policy).__name__})" for name, policy in zip(names, policies, strict=True)]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
