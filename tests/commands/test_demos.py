"""Recording demonstrations from the command line."""

from pathlib import Path

import pytest

from sensorimotor.data.formats import load_dataset

QUICK = ("task.start_range=0.04", "expert.candidates=32", "expert.threads=1")


def test_demonstrations_are_a_dataset_that_can_be_trained_on(command, tmp_path: Path) -> None:
    out = tmp_path / "demos.hdf5"
    done = command("demos", f"out={out}", "episodes=2", "seed=10", *QUICK)
    assert done.code == 0, done.err
    assert "2 episodes" in done.out
    episodes = load_dataset(out)
    assert len(episodes) == 2
    assert episodes.success is not None
    assert episodes.success.all()
    assert episodes.metadata["seeds"][0] >= 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out=demos.npz",), "must end in .hdf5"),
        (
            ("out=demos.hdf5", "task=push_t_human"),
            "push_t_human has no expert; use task=push_t, push_t_language, lift",
        ),
        (("out=demos.hdf5", "seed=100000"), "100000 and up are for evaluation"),
    ],
)
def test_impossible_wishes_say_what_is_possible(command, words: tuple[str, ...], said: str) -> None:
    done = command("demos", *words)
    assert done.code == 1
    assert said in done.err


def test_an_existing_file_is_kept_unless_told(command, tmp_path: Path) -> None:
    out = tmp_path / "demos.hdf5"
    out.write_text("precious")
    done = command("demos", f"out={out}")
    assert done.code == 1
    assert "overwrite=true" in done.err
    assert out.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_said_before_anything_is_recorded(command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("demos", f"out={tmp_path / 'file' / 'demos.hdf5'}")
    assert done.code == 1
    assert "give another out=" in done.err
    assert "recording" not in done.err
