"""Inspecting: what is in a dataset, good or bad."""

from pathlib import Path

import pytest

from sensorimotor.data.episodes import Episodes


def test_the_table_and_the_picture(command, dataset: Path, recordings: Episodes) -> None:
    done = command("inspect", f"path={dataset}")
    assert done.code == 0
    names = [name for field in recordings.spec.observation.values() for name in field.names]
    for word in ("6 episodes", "120 steps", "10 Hz", *names, *recordings.spec.action.names):
        assert word in done.out
    assert (dataset.parent / "demos.png").read_bytes().startswith(b"\x89PNG")


def test_no_picture_on_request(command, dataset: Path) -> None:
    assert command("inspect", f"path={dataset}", "picture=none").code == 0
    assert list(dataset.parent.iterdir()) == [dataset]


def test_numbers_that_are_not_finite_are_counted_with_a_way_out(command, spoilt: Path) -> None:
    done = command("inspect", f"path={spoilt}", "picture=none")
    assert done.code == 0
    assert "1 numbers are not finite" in done.err
    assert "skip_bad=true" in done.err


@pytest.mark.parametrize(
    ("word", "told"), [("path=nowhere.hdf5", "nowhere.hdf5"), ("format=npz", "npz"), ("picture=x.jpg", "PNG")]
)
def test_what_cannot_be_read_or_written_is_said(command, dataset: Path, word: str, told: str) -> None:
    done = command("inspect", *([f"path={dataset}"] if "path" not in word else []), word)
    assert done.code == 1
    assert told in done.err
