"""The experiment whose policy is told what to do: recorded where there is nothing yet, trained, judged."""

import json
from pathlib import Path

from sensorimotor.data.formats import load_dataset

QUICK = (
    "experiment=push_t_language",
    "data.record=2",
    "data.held_out=0",
    "training.steps=2",
    "training.batch_size=4",
    "training.tensorboard=false",
    "task.threads=1",
    "task.max_steps=150",
    "evaluation.episodes=1",
    "evaluation.video=0",
    "evaluation.baselines=[hold_still,nearest,regressor]",
)


def test_what_is_absent_is_recorded_learned_from_and_judged(command, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "demos" / "two.hdf5"
    done = command("train", *QUICK, f"run={run}", f"data.path={data}")
    assert done.code == 0, done.err
    recorded = load_dataset(data)
    assert len(recorded) == 2
    assert "image.top" not in recorded.observation
    assert recorded.spec.observation["instruction"].is_text
    judged = json.loads((run / "evaluation.json").read_text())
    assert judged["policy"]["episodes"] == 1
    compared = [baseline["policy"] for baseline in judged["baselines"]]
    assert compared == ["hold still", "nearest neighbour", "regressor"]  # the last two read no words
    before = data.stat().st_mtime_ns
    again = command(
        "train", *QUICK, f"run={tmp_path / 'other'}", f"data.path={data}", "evaluation.episodes=0"
    )
    assert again.code == 0, again.err
    assert data.stat().st_mtime_ns == before


def test_only_tasks_can_be_recorded(command, tmp_path: Path) -> None:
    data = tmp_path / "none.hdf5"
    done = command(
        "train", "experiment=recordings", "data.record=2", f"data.path={data}", f"run={tmp_path / 'r'}"
    )
    assert done.code == 1
    assert "only tasks are recorded" in done.err
    assert not data.exists()


def test_the_bundled_demonstrations_name_no_goal(command, tmp_path: Path) -> None:
    done = command("train", *QUICK, "data.path=bundled", f"run={tmp_path / 'r'}")
    assert done.code == 1
    assert "no `instruction`" in done.err
