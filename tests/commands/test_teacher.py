"""One run teaches another, as a user would have it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import sensorimotor


def words(dataset: Path, run: Path, tiny: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return ("train", f"data.path={dataset}", f"run={run}", "evaluation.baselines=[]", *tiny, *more)


@pytest.mark.parametrize(
    ("preset", "kind"), [("consistency_points", "ConsistencyPolicy"), ("reflow_points", "ReflowPolicy")]
)
def test_a_run_is_taught_by_another_interrupted_and_judged_without_it(
    command, trained: Path, dataset, tmp_path, tiny, preset: str, kind: str
) -> None:
    run = tmp_path / "student"
    taught = words(dataset, run, tiny, f"policy={preset}", f"policy.teacher={trained}")
    done = command(*taught, "training.steps=2", "evaluation.episodes=0")
    assert done.code == 0, done.err
    done = command("train", f"run={run}", "resume=true", "training.steps=4", "evaluation.episodes=1")
    assert done.code == 0, done.err
    assert yaml.safe_load((run / "config.yaml").read_text())["policy"]["teacher"] == str(trained)
    shutil.rmtree(trained)
    assert type(sensorimotor.load(run)).__name__ == kind
    done = command("eval", f"checkpoint={run}", "episodes=1", "video=0")
    assert done.code == 0, done.err


def test_a_student_without_a_teacher_is_told_before_anything_is_written(
    command, dataset, tmp_path, tiny
) -> None:
    run = tmp_path / "student"
    done = command(*words(dataset, run, tiny, "policy=consistency"))
    assert done.code == 1
    assert "policy.teacher=runs/" in done.err
    assert done.err.count("\n") == 1
    assert not run.exists()


def test_a_teacher_with_other_features_is_refused_with_what_to_set(
    command, trained: Path, dataset, tmp_path, tiny
) -> None:
    done = command(
        *words(dataset, tmp_path / "student", tiny, "policy=consistency", f"policy.teacher={trained}")
    )
    assert done.code == 1
    assert "set policy.relative=state" in done.err


def test_the_jumps_of_a_student_are_chosen_at_evaluation(
    command, trained: Path, dataset, tmp_path, tiny
) -> None:
    run = tmp_path / "student"
    taught = words(dataset, run, tiny, "policy=consistency_points", f"policy.teacher={trained}")
    assert command(*taught, "evaluation.episodes=0").code == 0
    done = command(
        "eval", f"checkpoint={run}", "episodes=1", "video=0", "sampler=consistency_jump", "sampler.steps=3"
    )
    assert done.code == 0, done.err
    assert json.loads((run / "evaluation.json").read_text())["sampler"]["steps"] == 3
    done = command("eval", f"checkpoint={trained}", "episodes=1", "video=0", "sampler=consistency_jump")
    assert done.code == 1
    assert "belongs to another family" in done.err


def test_a_streaming_policy_is_trained_and_judged(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    own = tuple(word for word in tiny if not word.startswith("policy.sampler"))
    done = command(*words(dataset, run, own, "policy=streaming_points"))
    assert done.code == 0, done.err
    assert type(sensorimotor.load(run)).__name__ == "StreamingPolicy"
