"""`sensorimotor inspect`: what a dataset holds, as a table and a picture."""

from pathlib import Path
from typing import Any

from ..configs.verbs import InspectConfig
from ..data.errors import DataError
from ..data.formats import load_dataset
from ..data.inspection import plot_trajectories, summarize, summary_table
from .console import Screen


def run(config: InspectConfig, screen: Screen) -> int:
    """Print the summary and write the picture."""
    path = Path(config.path)
    options: dict[str, Any] = {} if config.control_hz is None else {"control_hz": config.control_hz}
    episodes = load_dataset(path, format=config.format, require_finite=False, **options)
    summary = summarize(episodes)
    screen.say(str(path), style="bold")
    screen.out.print(summary_table(summary))
    bad = sum(key.not_finite for key in summary.keys)
    if bad:
        screen.warn(
            f"{bad} numbers are not finite; training refuses them: leave the episodes out with "
            f"`sensorimotor convert source={path} target=... skip_bad=true`"
        )
    if config.picture != "none":
        picture = Path(config.picture) if config.picture else path.with_name(f"{path.name.split('.')[0]}.png")
        if picture.suffix != ".png":
            raise DataError(f"the picture is a PNG; give picture=<file>.png, got {picture}")
        try:
            plot_trajectories(episodes, picture)
        except OSError as error:
            raise DataError(
                f"cannot write {picture}: {error.strerror}; give picture=<file>.png, or picture=none"
            ) from error
        screen.say(f"picture: {picture}")
    return 0
