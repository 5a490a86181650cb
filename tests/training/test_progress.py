"""What a person sees."""

import io

import pytest

from sensorimotor.training.progress import BarProgress, PlainProgress, clock_time, describe_row, make_progress

ROW = {"step": 50, "loss": 0.123456, "learning_rate": 1e-4, "updates_per_second": 12.5}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_one_plain_line_per_row() -> None:
    stream = io.StringIO()
    progress = make_progress(200, stream)
    progress.update(ROW)
    progress.update({"step": 60, "held_out_loss": 0.5})
    progress.close()
    assert stream.getvalue() == (
        "update 50/200  loss 0.1235  lr 1.00e-04  12.5 updates/s  0:00:12 left\n"
        "update 60/200  held-out loss 0.5\n"
    )


def test_a_terminal_gets_a_bar_with_the_newest_numbers() -> None:
    stream = Terminal()
    progress = make_progress(200, stream)
    progress.update(ROW)
    progress.close()
    assert isinstance(progress, BarProgress)
    assert "50/200" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (90_000, "25:00:00")]
)
def test_times_are_hours_minutes_seconds(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown


def test_absent_numbers_are_left_out() -> None:
    assert describe_row({"step": 3, "loss": None}, 10) == ""
    assert isinstance(make_progress(3, io.StringIO()), PlainProgress)
