from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.schema import from_mapping, to_mapping
from sensorimotor.data.spec import Field
from sensorimotor.data.windows import Windows
from sensorimotor.policies.consistency import ConsistencyConfig
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.factory import PolicyConfig, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.nearest import NearestConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.presets import PRESETS, preset
from sensorimotor.policies.reflow import ReflowConfig
from sensorimotor.policies.robomimic_policy import RobomimicConfig
from sensorimotor.policies.sampling import DDIM, DDPM
from sensorimotor.policies.teacher import Student
from sensorimotor.training.config import EmaConfig, TrainingConfig

TRAINABLE = [  # robomimic's need packages of their own, and have tests of their own
    name
    for name, p in PRESETS.items()
    if "published" not in name and not isinstance(p.policy, NearestConfig | RobomimicConfig)
]

CAMERAS: tuple[str, ...] = ("image.top", "image.agentview", "image.robot0_eye_in_hand")


def recordings(make_episodes: Callable, **options: Any) -> Episodes:
    """Numbers, pictures and an instruction: all that presets look at."""
    episodes: Episodes = make_episodes(widths={"state": 2, "environment": 4}, **options)
    pictures = np.random.default_rng(0).integers(0, 256, (episodes.steps, 32, 32, 3), dtype=np.uint8)
    seen = dict.fromkeys(CAMERAS, pictures)
    seen["instruction"] = np.array(["to the left", "to the right"])[np.arange(episodes.steps) % 2]
    fields = dict.fromkeys(CAMERAS, Field(shape=(32, 32, 3), dtype="uint8"))
    fields["instruction"] = Field(shape=(), dtype="str")
    spec = replace(episodes.spec, observation={**episodes.spec.observation, **fields})
    return replace(episodes, spec=spec, observation={**episodes.observation, **seen})


def make(name: str, episodes: Episodes) -> Policy:
    """A preset's policy; a student gets an untrained teacher with its own features."""
    config = PRESETS[name].policy
    if not isinstance(config, ConsistencyConfig | ReflowConfig):
        return make_policy(config, episodes)
    teacher = make_policy(FlowConfig(**config.shared()), episodes, seed=1)
    assert isinstance(teacher, GenerativePolicy)
    return make_policy(config, episodes, teacher=teacher)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_being_written_and_read(name: str) -> None:
    config = PRESETS[name].policy
    assert from_mapping(PolicyConfig, to_mapping(config)) == config
    assert isinstance(TrainingConfig(**PRESETS[name].training), TrainingConfig)


@pytest.mark.parametrize("name", TRAINABLE)
def test_presets_learn_from_recordings(name: str, make_episodes: Callable) -> None:
    episodes = recordings(make_episodes, steps=(30, 30))
    policy = make(name, episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(32))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    losses = []
    for i in range(12 if isinstance(policy, Student) else 30):  # an update of a student costs several
        optimizer.zero_grad()
        loss = policy(batch, torch.Generator().manual_seed(i % 3))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("name", TRAINABLE)
def test_presets_are_small(name: str, make_episodes: Callable) -> None:
    policy = make(name, recordings(make_episodes))
    assert sum(p.numel() for p in policy.parameters()) < 5_000_000


@pytest.mark.parametrize(
    ("name", "horizon", "betas", "warmup"),
    [
        ("diffusion_unet_published", 16, (0.95, 0.999), 500),
        ("diffusion_transformer_published", 10, (0.9, 0.95), 1000),
    ],
)
def test_published_presets_are_the_published_numbers(
    name: str, horizon: int, betas: tuple[float, float], warmup: int, make_episodes: Callable
) -> None:
    policy, training = preset(name).policy, TrainingConfig(**preset(name).training)
    chunk = policy.chunk
    assert (chunk.observation_steps, chunk.horizon, chunk.execute, chunk.start) == (2, horizon, 8, -1)
    assert policy.sampler == DDPM(steps=100)  # pyright: ignore[reportAttributeAccessIssue]
    assert (training.betas, training.warmup_steps, training.batch_size) == (betas, warmup, 256)
    assert (training.learning_rate, training.schedule) == (1e-4, "cosine")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("diffusion_unet_published", 65_353_218 + 430_080),
        ("diffusion_transformer_published", 8_967_690 - 4_104),
    ],
)
def test_published_presets_have_the_published_size_on_push_t(
    name: str, expected: int, make_episodes: Callable
) -> None:
    # Published counts are of a U-Net for 10 condition numbers and of a transformer for 3 steps of 19 observed and 10 commanded
    # numbers; PushT has 2 steps of 20 and 2 commanded.
    episodes = make_episodes(widths={"state": 2, "environment": 18})
    policy = make_policy(PRESETS[name].policy, episodes)
    assert sum(p.numel() for p in policy.parameters()) == expected


def test_the_published_energy_policy_is_the_released_one(make_episodes: Callable) -> None:
    policy, training = preset("ebt_published").policy, TrainingConfig(**preset("ebt_published").training)
    assert isinstance(policy, EnergyConfig)
    chunk, step, unroll = policy.chunk, policy.step, policy.unroll
    assert (chunk.observation_steps, chunk.horizon, chunk.execute, chunk.start) == (2, 16, 8, -1)
    assert (step.size, step.momentum, step.temperature, step.normalize) == (1000, 0.9, 9, True)
    assert (unroll.steps, unroll.extra, unroll.size_spread, unroll.noise) == (6, 4, 1.5, (0.2, 0.002))
    assert unroll.truncate
    assert unroll.detach
    assert policy.sampler == Descent(steps=20, tolerance=1e-3)
    assert (training.learning_rate, training.batch_size, training.warmup_steps) == (3e-5, 64, 500)
    assert training.ema == EmaConfig(power=0.75)
    network = make_policy(policy, make_episodes(widths={"state": 2, "environment": 18}))
    # 5.27 and 3.16 million in the blocks, and what leads into and out of them
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(8.6e6, rel=0.01)


def test_few_step_sampling_of_a_published_preset_is_one_line(make_episodes: Callable) -> None:
    config = replace(preset("diffusion").policy, sampler=DDIM(steps=5))
    policy = make_policy(config, make_episodes())
    assert isinstance(policy, GenerativePolicy)
    assert policy.sampler == DDIM(steps=5)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'diffusion'"):
        preset("difusion")
