from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.transformer import TransformerConfig
from sensorimotor.policies.unet import UNetConfig

CONFIG = RegressorConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=2),
    trunk=MLPConfig(width=32, depth=1, step_width=8),
)


def test_all_samples_are_the_one_prediction(episodes: Episodes) -> None:
    policy = make_policy(CONFIG, episodes)
    observation = {"state": torch.rand(2, 1, 2), "environment": torch.rand(2, 1, 3)}
    chunks = policy.sample(observation, samples=3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chunks, chunks[:, :1].expand_as(chunks))
    assert torch.equal(chunks[:, :1], policy.sample(observation))


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_it_fits_the_mean_of_what_was_demonstrated(episodes: Episodes, loss: str) -> None:
    # One observation, two demonstrations: the best single answer lies between them, and there it is wrong twice.
    policy = make_policy(replace(CONFIG, loss=loss), episodes)  # pyright: ignore[reportArgumentType]
    batch = Windows(episodes, policy.spec).batch(np.zeros(2, dtype=np.int64))
    batch.action[0], batch.action[1] = -0.5, 0.7
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        policy(batch, torch.Generator()).backward()
        optimizer.step()
    chunk = policy.eval().sample({key: value[:1] for key, value in batch.observation.items()})
    torch.testing.assert_close(chunk, torch.full_like(chunk, 0.1), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "trunk",
    [
        UNetConfig(channels=(16, 32), kernel=3, step_width=8),
        TransformerConfig(width=32, layers=1, attention_dropout=0.0),
        MLPConfig(width=32),
    ],
)
def test_every_trunk_learns(episodes: Episodes, trunk: UNetConfig | TransformerConfig | MLPConfig) -> None:
    policy = make_policy(replace(CONFIG, trunk=trunk), episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = policy(batch, torch.Generator())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'smooth_l1'"):
        RegressorConfig(loss="smoothl1")  # pyright: ignore[reportArgumentType]


def test_the_baseline_of_another_policy_has_its_windows_network_and_features() -> None:
    other = FlowConfig(trunk=MLPConfig(width=48), relative="state", octaves=3, history_dropout=0.25)
    baseline = RegressorConfig.like(other)
    for field in fields(NetworkConfig):
        assert getattr(baseline, field.name) == getattr(other, field.name)
    assert baseline.octaves == 3
