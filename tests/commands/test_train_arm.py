"""An arm that is learned from its cameras, with the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.data.formats import load_dataset, save_dataset
from sensorimotor.data.spec import Field
from sensorimotor.policies.factory import load

RAW = ("agentview_image", "robot0_eye_in_hand_image")  # what robomimic calls them


def add_pictures(source: Path, target: Path) -> None:
    """A recording with noise for pictures: to render real ones takes as long as all the rest."""
    episodes = load_dataset(source)
    shape = (episodes.steps, 32, 32, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    spec = replace(
        episodes.spec,
        observation={
            **episodes.spec.observation,
            **dict.fromkeys(RAW, Field(shape=shape[1:], dtype="uint8")),
        },
    )
    observation = {**episodes.observation, **dict.fromkeys(RAW, noise)}
    save_dataset(replace(episodes, spec=spec, observation=observation), target)


def test_lift_is_learned_and_judged_from_two_cameras(command, tmp_path: Path) -> None:
    pytest.importorskip("robosuite", reason="the arms need robosuite, which `make install` brings")
    run = tmp_path / "run"
    recorded = command("demos", "task=lift", "episodes=1", f"out={tmp_path / 'blind.hdf5'}")
    assert recorded.code == 0, recorded.err
    add_pictures(tmp_path / "blind.hdf5", tmp_path / "lift.hdf5")
    done = command(
        "train",
        "experiment=lift",
        "policy=flow_arm_pixels",
        "task.images=true",
        "task.image_size=32",
        "task.max_steps=16",
        f"data.path={tmp_path / 'lift.hdf5'}",
        f"run={run}",
        "data.held_out=0",
        "training.steps=2",
        "training.batch_size=4",
        "training.tensorboard=false",
        "evaluation.episodes=1",
        "evaluation.video=0",
        "evaluation.baselines=[]",
    )
    assert done.code == 0, done.err
    assert json.loads((run / "evaluation.json").read_text())["policy"]["episodes"] == 1
    cameras = [key for key in load(run).spec.observation if key.startswith("image.")]
    assert cameras == ["image.agentview", "image.robot0_eye_in_hand"]
