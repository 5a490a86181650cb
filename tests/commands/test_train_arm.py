"""An arm that is learned from its cameras: recorded, trained and judged with the command."""

import json
from pathlib import Path

import pytest

from sensorimotor.policies.factory import load


def test_lift_is_recorded_learned_and_judged_from_two_cameras(command, tmp_path: Path) -> None:
    pytest.importorskip("robosuite", reason="the arms need robosuite, which `make install` brings")
    data, run = tmp_path / "lift.hdf5", tmp_path / "run"
    assert (
        command("demos", "task=lift", "episodes=1", f"out={data}").code == 0
    )  # pictures are made when they are learned from
    done = command(
        "train",
        "experiment=lift",
        "policy=flow_arm_pixels",
        "task.images=true",
        "task.image_size=32",
        "task.max_steps=16",
        f"data.path={data}",
        f"run={run}",
        "data.held_out=0",
        "training.steps=2",
        "training.batch_size=4",
        "training.tensorboard=false",
        "evaluation.episodes=1",
        "evaluation.video=0",
        "evaluation.baselines=[hold_still]",
    )
    assert done.code == 0, done.err
    assert json.loads((run / "evaluation.json").read_text())["policy"]["episodes"] == 1
    cameras = [key for key in load(run).spec.observation if key.startswith("image.")]
    assert cameras == ["image.agentview", "image.robot0_eye_in_hand"]
