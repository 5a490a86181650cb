"""What the user sees: bars on a terminal, plain lines in a pipe or a log file.

Results go to standard output, everything else (progress, warnings, errors) to standard error, so that
`sensorimotor ... > file` keeps what matters.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ..training.progress import Progress, make_progress

_HERE = Path(__file__).resolve().parents[1]
_PLAIN_WIDTH = 110  # columns of a table that goes to a file
_PLAIN_LINES = 10  # progress lines per evaluation where there is no terminal
_TRAINING_LINES = 20  # and per training


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PLAIN_WIDTH)
    return console


@dataclass
class Screen:
    """The two streams and a clock.

    Attributes:
        out: results.
        err: progress, warnings and errors.
        clock: seconds, for rates of progress.
    """

    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))
    clock: Callable[[], float] = time.monotonic

    def say(self, text: str, style: str = "") -> None:
        """One line of result; never wrapped, so that a path can be copied."""
        self.out.print(text, style=style, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        """One line about what is going on."""
        self.err.print(text, style="dim", soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """One line the user should not miss."""
        self.err.print(f"warning: {text}", style="yellow", soft_wrap=True, markup=False)

    def table(self, table: Table) -> None:
        """A result table."""
        self.out.print(table)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[..., None]]:
        """Yield `update(done, total, text="")`; a bar on a terminal, about ten lines elsewhere."""
        if not self.err.is_terminal:
            yield _plain_progress(self, what)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[text]}"),
        )
        with Bar(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(what, total=None, text="")

            def update(done: int, total: int, text: str = "") -> None:
                bar.update(task, completed=done, total=total, text=text)

            yield update


@contextmanager
def shown_warnings(screen: Screen) -> Iterator[None]:
    """Say this project's own warnings in one line each; keep the chatter of libraries out of the way."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> None:
        if _HERE in Path(filename).resolve().parents:
            screen.warn(str(message))

    with warnings.catch_warnings():
        if not os.environ.get("SENSORIMOTOR_DEBUG"):
            warnings.simplefilter("default")
            # Said of whichever line runs when an object is dropped, whoever left it open.
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = show
        yield


def _plain_progress(screen: Screen, what: str) -> Callable[..., None]:
    began, printed = screen.clock(), 0

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal printed
        tenth = _PLAIN_LINES * done // max(total, 1)
        if tenth > printed:
            printed = tenth
            seconds = screen.clock() - began
            screen.note(f"{what}: {done}/{total} in {duration(seconds)}{'  ' + text if text else ''}")

    return update


class SparseProgress:
    """Rows of training as plain lines, about twenty of them, and every held-out loss."""

    def __init__(self, steps: int, shown: Progress) -> None:
        """Show rows of a run of `steps` updates through another, more talkative display."""
        self._steps, self._shown = steps, shown
        self._last = 0

    def update(self, row: Mapping[str, float | None]) -> None:
        """Take a row; show it if enough has happened since the last one."""
        share = int(_TRAINING_LINES * (row["step"] or 0) / self._steps)
        if share > self._last or "held_out_loss" in row:
            self._last = share
            self._shown.update(row)

    def close(self) -> None:
        """Stop showing."""
        self._shown.close()


def training_progress(screen: Screen, steps: int) -> Progress:
    """A bar on a terminal, a few plain lines elsewhere."""
    shown = make_progress(steps)
    return shown if screen.err.is_terminal else SparseProgress(steps, shown)


def duration(seconds: float) -> str:
    """`8.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
