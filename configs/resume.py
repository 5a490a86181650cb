"""Going on with a run: the configuration it was started with counts, not today's defaults."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..data.errors import ConfigError


def resumed(values: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, Any] | None:
    """The configuration stored in the run folder, if there is a run to go on with.

    Args:
        values: composed from the command line.
        chosen: the groups that were written on the command line; they must not contradict the run.

    Raises:
        ConfigError: if no run is named, the stored file is damaged, or a chosen option differs from the run's.
    """
    if not values["run"]:
        raise ConfigError("resume=true needs the run to go on with: run=runs/...")
    path = Path(str(values["run"])) / "config.yaml"
    if not path.exists():
        return None
    try:
        stored = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    for group in chosen:
        key = "name" if group == "experiment" else group
        if group != "training" and _kind(stored.get(key)) != _kind(values.get(key)):
            raise ConfigError(
                f"{path.parent} was begun with another {group}: {_kind(stored.get(key))}, not "
                f"{_kind(values.get(key))}; leave {group}= out, or choose another run="
            )
    return {**stored, "run": values["run"], "resume": True}


def _kind(value: Any) -> Any:
    return value.get("kind", value.get("path")) if isinstance(value, Mapping) else value
