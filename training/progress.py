"""What a person sees during training: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from typing import Protocol, TextIO


class Progress(Protocol):
    """Shown rows of metrics."""

    def update(self, row: Mapping[str, float | None]) -> None:
        """Take a row; it holds `step` and whatever was measured."""
        ...

    def close(self) -> None:
        """Stop showing."""
        ...


class NoProgress:
    """Shows nothing."""

    def update(self, row: Mapping[str, float | None]) -> None:
        """Ignore the row."""

    def close(self) -> None:
        """Nothing to stop."""


class PlainProgress:
    """One line per row, for logs and pipes."""

    def __init__(self, steps: int, stream: TextIO) -> None:
        """Take the number of updates of the run and where the lines go."""
        self._steps, self._stream = steps, stream

    def update(self, row: Mapping[str, float | None]) -> None:
        """Write the row as one line."""
        self._stream.write(f"update {row['step']}/{self._steps}  {describe_row(row, self._steps)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to stop; the stream is the caller's."""


class BarProgress:
    """A bar with the newest numbers beside it."""

    def __init__(self, steps: int, stream: TextIO) -> None:
        """Take the number of updates of the run and the terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._steps = steps
        self._bar = Progress(*columns, console=Console(file=stream))
        self._task = self._bar.add_task("starting", total=steps)
        self._bar.start()

    def update(self, row: Mapping[str, float | None]) -> None:
        """Move the bar."""
        step = row["step"]
        self._bar.update(self._task, completed=step, description=describe_row(row, self._steps))

    def close(self) -> None:
        """Leave the bar as it is and free the terminal."""
        self._bar.stop()


def make_progress(steps: int, stream: TextIO | None = None) -> Progress:
    """A bar if the stream (standard error if not given) is a terminal, plain lines otherwise."""
    shown = sys.stderr if stream is None else stream
    return BarProgress(steps, shown) if shown.isatty() else PlainProgress(steps, shown)


def describe_row(row: Mapping[str, float | None], steps: int) -> str:
    """The numbers of a row that a person wants, with the time left."""
    words = []
    for key, form in (
        ("loss", "loss {:.4g}"),
        ("held_out_loss", "held-out loss {:.4g}"),
        ("learning_rate", "lr {:.2e}"),
        ("updates_per_second", "{:.1f} updates/s"),
    ):
        value = row.get(key)
        if value is not None:
            words.append(form.format(value))
    rate, step = row.get("updates_per_second"), row.get("step")
    if rate and step is not None:
        words.append(f"{clock_time((steps - step) / rate)} left")
    return "  ".join(words)


def clock_time(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
