"""From recordings to a critic, with the same words as to a policy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import sensorimotor
from sensorimotor.configs.compose import compose
from sensorimotor.data.formats import save_dataset
from sensorimotor.policies.presets import PRESETS
from sensorimotor.rl.cal_ql import CalQLConfig
from sensorimotor.rl.presets import CRITICS
from sensorimotor.training.config import TrainingConfig

SMALL = (
    "critic.hidden=[16]",
    "data.held_out=0.2",
    "data.mirror=false",
    "training.steps=4",
    "training.batch_size=8",
    "training.log_every=2",
    "training.tensorboard=false",
    "task.max_steps=5",
)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("policy", ["flow_points", "diffusion_unet_published"])
def test_a_preset_arrives_whole_whatever_the_policy(name: str, policy: str) -> None:
    config = compose("train", [f"critic={name}", f"policy={policy}", "experiment=null", "name=x"])
    assert config.critic == CRITICS[name].critic
    assert config.training == TrainingConfig(**CRITICS[name].training)


def test_a_critic_sets_whatever_policies_set() -> None:
    everything = {key for preset in PRESETS.values() for key in preset.training}
    assert everything <= set(CRITICS["cal_ql"].training)


def test_without_a_critic_a_policy_is_trained_and_keys_of_one_can_be_set() -> None:
    assert compose("train", []).critic is None
    config = compose("train", ["critic=cal_ql", "critic.alpha=2", "critic.labels.source=rewards"])
    assert isinstance(config.critic, CalQLConfig)
    assert (config.critic.alpha, config.critic.labels.source) == (2.0, "rewards")
    assert config.training.steps == 5000  # the experiment's, which is chosen after it


@pytest.mark.parametrize("name", ["cal_ql_points", "iql"])
def test_a_critic_is_trained_reported_and_loaded(command, dataset, tmp_path, name: str) -> None:
    run = tmp_path / "run"
    done = command("train", f"critic={name}", f"data.path={dataset}", f"run={run}", *SMALL)
    assert done.code == 0, done.err
    assert f"critic      {name.removesuffix('_points')}," in done.err
    assert "every episode counts as a success: the data says nothing about it" in done.err
    assert "health: value of the data" in done.out
    assert done.out.rstrip().endswith(f"critic={run}")
    assert not (run / "evaluation.json").exists()
    assert json.loads((run / "outcome.json").read_text())["data"]["held_out"] == 1
    assert yaml.safe_load((run / "config.yaml").read_text())["critic"]["hidden"] == [16]
    critic = sensorimotor.load_critic(run)
    observation = {key: torch.zeros(2, 1, *field.shape) for key, field in critic.spec.observation.items()}
    assert critic.value(observation, torch.zeros(2, 3, 1, 2)).shape == (2, 3)
    assert command("report", f"run={run}").code == 0
    page = (run / "report.html").read_text()
    assert f"{name.removesuffix('_points')} critic" in page
    assert "Health" in page
    assert "Not evaluated yet" not in page


def test_a_critics_run_is_resumed_and_is_no_policy(command, dataset, tmp_path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ("critic=iql", f"data.path={dataset}", *SMALL)
    assert command("train", *words, f"run={whole}").code == 0
    assert command("train", *words, f"run={run}", "training.steps=2").code == 0
    done = command("train", f"run={run}", "resume=true", "training.steps=4")
    assert done.code == 0, done.err
    first, second = (
        load_file(folder / "checkpoints" / "last" / "model.safetensors") for folder in (whole, run)
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    done = command("eval", f"checkpoint={run}", "episodes=1", "video=0")
    assert done.code == 1
    assert "holds a critic" in done.err
    assert "load_critic" in done.err


def test_failures_are_counted_and_missing_rewards_named(command, recordings, tmp_path: Path) -> None:
    success = np.arange(len(recordings)) % 2 == 0
    path, run = tmp_path / "mixed.npz", tmp_path / "run"
    save_dataset(replace(recordings, success=success), path)
    words = ("train", "critic=iql", f"data.path={path}", *SMALL)
    done = command(*words, f"run={run}")
    assert done.code == 0, done.err
    assert "of 5 episodes succeeded; discount 0.98" in done.err
    done = command(*words, f"run={tmp_path / 'other'}", "critic.labels.source=rewards")
    assert done.code == 1
    assert "labels.source=success" in done.err
