"""Overrides on a command line become frozen, typed configurations."""

import dataclasses

import pytest

from sensorimotor.configs.compose import compose
from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.nearest import NearestConfig
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import DDIM
from sensorimotor.policies.transformer import TransformerConfig
from sensorimotor.sim.push_t import PushTConfig
from sensorimotor.sim.push_t_human import PushTHumanConfig
from sensorimotor.training.config import TrainingConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_arrives_whole(name: str) -> None:
    config = compose("train", [f"policy={name}", "experiment=null", "name=x"])
    assert config.policy == PRESETS[name].policy
    assert config.training == TrainingConfig(**PRESETS[name].training)


def test_everything_that_arrives_is_frozen() -> None:
    config = compose("train", [])
    for part in (config, config.policy, config.training, config.policy.chunk):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.seed = 1


def test_values_are_set_where_they_were_written() -> None:
    words = [
        "policy=flow_transformer",
        "policy.trunk.width=512",
        "training.steps=1e3",
        "run=runs/x",
        "seed=3",
    ]
    config = compose("train", words)
    assert isinstance(config.policy, FlowConfig)
    assert isinstance(config.policy.trunk, TransformerConfig)
    assert (config.policy.trunk.width, config.training.steps, config.run) == (512, 1000, "runs/x")
    assert config.seed == config.training.seed == 3


def test_an_option_beats_the_experiment_and_a_value_beats_both() -> None:
    words = ["experiment=push_t_human", "policy=nearest", "data.path=x.npz", "data.mirror=false"]
    config = compose("train", words)
    assert isinstance(config.policy, NearestConfig)
    assert isinstance(config.task, PushTHumanConfig)
    assert (config.name, config.data.path, config.data.mirror) == ("push_t_human", "x.npz", False)
    assert config.data.control_hz == 10.0


def test_an_alternative_by_name_brings_its_own_defaults() -> None:
    config = compose(
        "train", ["policy=diffusion", "policy.trunk=mlp", "policy.trunk.depth=2", "policy.sampler=ddim"]
    )
    assert config.policy == dataclasses.replace(
        PRESETS["diffusion"].policy, trunk=MLPConfig(depth=2), sampler=DDIM()
    )
    assert isinstance(config.policy, DiffusionConfig)


def test_an_optional_part_can_be_switched_off() -> None:
    config = compose("train", ["training.ema=null", "task=null", "training.clip_norm=null"])
    assert config.training.ema is None
    assert config.task is None
    assert config.training.clip_norm is None


def test_a_key_of_another_alternative_says_which() -> None:
    with pytest.raises(ConfigError, match=r"policy\.trunk=mlp"):
        compose("train", ["policy=flow", "policy.trunk=unet", "policy.trunk.expansion=512"])


@pytest.mark.parametrize(
    "path", ["a b.hdf5", "a=b.hdf5", "a(1),b.hdf5", "/x/y-z_0.1.hdf5", "3", "'q'", "[x", "C:\\d\\e"]
)
def test_a_path_is_taken_as_it_is_written(path: str) -> None:
    assert compose("inspect", [f"path={path}"]).path == path.strip("'")


@pytest.mark.parametrize("written", ["[nearest,random]", "nearest,random", "[nearest, random]"])
def test_a_list_needs_no_brackets(written: str) -> None:
    assert compose("eval", ["checkpoint=x", f"baselines={written}"]).baselines == ("nearest", "random")


def test_one_word_is_a_list_of_one() -> None:
    assert compose("eval", ["checkpoint=x", "baselines=nearest"]).baselines == ("nearest",)
    assert compose("eval", ["checkpoint=x", "baselines=[]"]).baselines == ()


def test_a_task_can_be_chosen_and_changed() -> None:
    assert compose("eval", ["checkpoint=x"]).task is None
    config = compose("eval", ["checkpoint=x", "task=push_t", "task.max_steps=7"])
    assert config.task == PushTConfig(max_steps=7)


@pytest.mark.parametrize(
    "words",
    [
        ["+seed=3"],
        ["~seed"],
        ["++training.steps=3"],
        ["seed"],
        ["=3"],
        ["policy@x=flow"],
        ["policy.kind=FlowConfig"],
        ["policy.trunk={width: 3}"],
        ["training.steps=2.5"],
        ["training.steps=true"],
        ["training.betas=[0.9]"],
        ["training.betas=[0.9,x]"],
        ["seed=null"],
        ["training=3"],
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        compose("train", words)


def test_composing_twice_gives_the_same() -> None:
    first, second = compose("train", ["seed=1"]), compose("train", ["seed=1"])
    assert first == second
    assert compose("train", []).seed == 0
