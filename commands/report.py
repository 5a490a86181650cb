"""`sensorimotor report`: everything about a run on one page that can be sent as one file."""

from datetime import datetime
from pathlib import Path

from .. import __version__
from ..configs.verbs import ReportConfig
from ..data.errors import DataError
from ..data.files import atomic_file
from .console import Screen
from .page import render
from .runs import read_run


def run(config: ReportConfig, screen: Screen) -> int:
    """Write the page and say where it is."""
    path = write_report(
        Path(config.run), None if config.path is None else Path(config.path), now=datetime.now()
    )
    screen.say(f"{path}  {path.stat().st_size / 1e6:.1f} MB, complete in itself")
    return 0


def write_report(folder: Path, path: Path | None = None, *, now: datetime) -> Path:
    """Write the page about a run folder.

    Args:
        folder: the run.
        path: where the page goes; `report.html` in the run folder if None.
        now: printed on the page.

    Returns:
        Where the page is.
    """
    path = path or folder / "report.html"
    if path.is_dir():
        raise DataError(f"{path} is a folder; give path=<file>.html")
    page = render(read_run(folder), created=f"{now:%Y-%m-%d %H:%M}", version=__version__)
    with atomic_file(path) as temporary:
        temporary.write_text(page)
    return path
