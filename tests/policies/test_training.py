"""Policies under the project's training loop: from recordings to a loadable run folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.energy_transformer import EnergyTransformerConfig
from sensorimotor.policies.factory import PolicyConfig, describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.unroll import Unroll
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import train

CHUNK = ChunkConfig(observation_steps=2, horizon=4, execute=2)
SMALL = MLPConfig(width=32, depth=1, step_width=8, dropout=0.1)
CONFIGS: list[PolicyConfig] = [
    DiffusionConfig(chunk=CHUNK, trunk=SMALL, prediction="v_prediction"),
    FlowConfig(chunk=CHUNK, trunk=SMALL, relative="state", octaves=1, observation_noise=0.01, mask_loss=True),
    RegressorConfig(chunk=CHUNK, trunk=SMALL),
    EnergyConfig(
        chunk=CHUNK,
        trunk=EnergyMLPConfig(width=32, depth=1, dropout=0.1),
        objective="denoise",
        learn_size=True,
    ),
    EnergyConfig(
        chunk=CHUNK,
        trunk=EnergyTransformerConfig(width=16, layers=1, observation_layers=1),
        objective="regress",
        unroll=Unroll(steps=2, extra=1, truncate=False),
    ),
]
IDS = ["diffusion", "flow", "regressor", "denoising energy", "descending energy"]


def options(**changes: object) -> TrainingConfig:
    return TrainingConfig(
        steps=12, batch_size=8, warmup_steps=2, log_every=4, evaluate_every=6, checkpoint_every=6,
        device="cpu", tensorboard=False, **changes,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_policy_can_be_loaded_from_its_run(
    tmp_path: Path, make_episodes: Callable, config: PolicyConfig, precision: str
) -> None:
    episodes = make_episodes(steps=(20, 20))
    policy = make_policy(config, episodes)
    windows = Windows(episodes, policy.spec)
    outcome = train(
        policy, windows, options(precision=precision), tmp_path / "run",
        held_out=windows, describe=partial(describe, policy),
    )  # fmt: skip
    assert np.isfinite(outcome.loss)
    loaded = load(tmp_path / "run")
    assert loaded.config == config
    chunks = loaded.sample(windows.batch(np.arange(3)).observation, samples=2)
    assert chunks.shape == (3, 2, 4, 2)
    assert torch.isfinite(chunks).all()


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_the_same_seed_trains_the_same_policy(
    tmp_path: Path, make_episodes: Callable, config: PolicyConfig
) -> None:
    episodes = make_episodes(steps=(20, 20))
    weights = []
    for run in ("a", "b"):
        torch.manual_seed(len(weights))  # the global generator has no say
        policy = make_policy(config, episodes, seed=1)
        train(
            policy,
            Windows(episodes, policy.spec),
            options(),
            tmp_path / run,
            describe=partial(describe, policy),
        )
        weights.append([p.detach().clone() for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
