"""Rows of numbers survive crashes, and resuming leaves no second version of any."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sensorimotor.data.errors import TrainingError
from sensorimotor.training.metrics import FILE, Metrics, read_metrics


def write(folder: Path, steps: range, *, resume_from: int = 0) -> None:
    with Metrics(folder, step=resume_from, tensorboard=False) as metrics:
        for step in steps:
            metrics.write({"step": step, "loss": step / 8})


def test_resuming_replaces_what_came_after(tmp_path: Path) -> None:
    write(tmp_path / "once", range(1, 7))
    write(tmp_path / "twice", range(1, 6))
    write(tmp_path / "twice", range(4, 7), resume_from=3)
    assert (tmp_path / "twice" / FILE).read_text() == (tmp_path / "once" / FILE).read_text()


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    write(tmp_path, range(4, 6), resume_from=3)
    assert [json.loads(line)["step"] for line in (tmp_path / FILE).read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    write(tmp_path, range(1, 2))
    assert len(read_metrics(tmp_path)) == 1


def test_a_row_is_on_disk_before_the_next(tmp_path: Path) -> None:
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.write({"step": 1, "loss": 0.1})
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.1}]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_every_line_is_plain_json(tmp_path: Path, value: float | None) -> None:
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.write({"step": 1, "held_out_loss": value})
    assert (tmp_path / FILE).read_text() == '{"step": 1, "held_out_loss": null}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Path.open

    def full_when_appending(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return usual(Path("/dev/full") if mode == "a" else self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full_when_appending)
    with pytest.raises(TrainingError, match="No space left"), Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.write({"step": 1})


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Metrics(tmp_path) as metrics:
        for step in (1, 2):
            metrics.write({"step": step, "loss": step / 8, "held_out_loss": math.nan})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.125), (2, 0.25)]
    assert events.Tags()["scalars"] == ["loss"]
