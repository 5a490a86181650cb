"""Progress and words: bars on a terminal only, plain lines elsewhere."""

import io
import warnings

import pytest
from rich.console import Console

from sensorimotor.commands.console import Screen, SparseProgress, duration, shown_warnings
from sensorimotor.training.progress import PlainProgress


class Clock:
    """Moved by the test only."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def screen(*, terminal: bool) -> tuple[Screen, io.StringIO, Clock]:
    """A screen whose error stream can be read."""
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, force_terminal=terminal, width=100)
    return Screen(out=Console(file=io.StringIO()), err=console, clock=clock), text, clock


def test_without_a_terminal_there_are_at_most_ten_plain_lines() -> None:
    shown, text, clock = screen(terminal=False)
    with shown.progress("evaluating") as update:
        for done in range(1, 51):
            clock.now = done * 2.0
            update(done, 50)
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1] == "evaluating: 50/50 in 1 min 40 s"
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    shown, text, _ = screen(terminal=True)
    with shown.progress("evaluating") as update:
        update(1, 2)
    assert "\x1b[" in text.getvalue()
    assert not text.getvalue().endswith("1/2\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_brackets_in_words_are_no_markup() -> None:
    shown, text, _ = screen(terminal=False)
    shown.warn("pip install 'sensorimotor[pusht]'")
    assert text.getvalue() == "warning: pip install 'sensorimotor[pusht]'\n"


def test_a_line_is_never_broken_so_that_a_path_can_be_copied() -> None:
    shown, text, _ = screen(terminal=False)
    shown.note("x" * 500)
    assert text.getvalue() == "x" * 500 + "\n"


def test_only_warnings_of_this_project_are_shown() -> None:
    from sensorimotor.data import files

    shown, text, _ = screen(terminal=False)
    with shown_warnings(shown):
        warnings.warn_explicit("a library is chatty", UserWarning, "/usr/lib/python3/chatty.py", 1)
        warnings.warn_explicit("unclosed file", ResourceWarning, files.__file__, 1)  # left open by anybody
        warnings.warn_explicit("look at this", UserWarning, files.__file__, 1)
    assert text.getvalue() == "warning: look at this\n"


def test_a_long_training_is_twenty_lines_and_its_held_out_losses() -> None:
    text = io.StringIO()
    progress = SparseProgress(5000, PlainProgress(5000, text))
    for step in range(50, 5001, 50):
        progress.update({"step": step, "loss": 1.0})
        if step % 1000 == 0:
            progress.update({"step": step, "held_out_loss": 2.0})
    lines = text.getvalue().splitlines()
    assert len([line for line in lines if "held-out" in line]) == 5
    assert len(lines) == 25
    assert lines[-2].startswith("update 5000/5000  loss 1")


def test_a_short_training_shows_every_row() -> None:
    text = io.StringIO()
    progress = SparseProgress(4, PlainProgress(4, text))
    for step in (2, 4):
        progress.update({"step": step, "loss": 1.0})
    assert len(text.getvalue().splitlines()) == 2
