from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.flow import FlowConfig, FlowPolicy, draw_times
from sensorimotor.policies.mlp import MLPConfig

CONFIG = FlowConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=2),
    trunk=MLPConfig(width=16, depth=1, step_width=8),
)


def build(config: FlowConfig, episodes: Episodes) -> FlowPolicy:
    policy = make_policy(config, episodes)
    assert isinstance(policy, FlowPolicy)
    return policy


def test_beta_times_have_the_published_distribution() -> None:
    t = draw_times("beta", 400_000, torch.Generator().manual_seed(0))
    assert t.mean().item() == pytest.approx(0.6004, abs=0.002)
    assert t.median().item() == pytest.approx(0.630331, abs=0.003)
    assert t.std().item() == pytest.approx(0.261600, abs=0.002)
    assert (t < 0.1).float().mean().item() == pytest.approx(0.0312, abs=0.002)
    assert (t > 0.9).float().mean().item() == pytest.approx(0.1463, abs=0.003)
    low, high = torch.quantile(t[:100_000], torch.tensor([0.1, 0.9])).tolist()
    assert (low, high) == pytest.approx((0.2162, 0.9322), abs=0.005)


def test_uniform_times_cover_the_path_evenly_and_leave_out_its_end() -> None:
    t = draw_times("uniform", 100_000, torch.Generator().manual_seed(0))
    assert t.min().item() >= 0.001
    assert t.max().item() <= 1.0
    torch.testing.assert_close(torch.histc(t, 10, 0, 1) / 1e5, torch.full((10,), 0.1), atol=0.005, rtol=0)


@pytest.mark.parametrize("time", ["uniform", "beta"])
def test_the_loss_is_zero_for_a_network_that_knows_the_way(episodes: Episodes, time: str) -> None:
    policy = build(replace(CONFIG, time=time), episodes)  # pyright: ignore[reportArgumentType]
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    action = policy.normalizer.normalize("action", batch.action)

    class Oracle(torch.nn.Module):
        def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
            return (x - action) / (step / 1000).view(-1, 1, 1)  # at x = a + t (eps - a)

    policy.trunk = Oracle()
    assert policy(batch, torch.Generator().manual_seed(0)).item() < 1e-4


def test_a_network_that_says_nothing_has_the_loss_of_the_way_itself(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    for p in policy.parameters():
        torch.nn.init.zeros_(p)
    index = np.random.default_rng(0).integers(episodes.steps, size=8000)
    batch = Windows(episodes, policy.spec).batch(index)
    action = policy.normalizer.normalize("action", batch.action)
    expected = 1 + action.square().mean().item()
    assert policy(batch, torch.Generator().manual_seed(0)).item() == pytest.approx(expected, rel=0.03)


def test_noise_follows_from_the_velocity_exactly(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    x, s = torch.randn(3, 4, 2), torch.tensor([1.0, 0.5, 0.1])
    condition = policy.encode({"state": torch.zeros(3, 1, 2), "environment": torch.zeros(3, 1, 3)})
    noise, velocity = policy.predict_noise(x, s, condition), policy.predict_velocity(x, s, condition)
    torch.testing.assert_close(noise, x + (1 - s.view(-1, 1, 1)) * velocity)
    torch.testing.assert_close(noise[0], x[0])  # at s = 1 the point is the noise


def test_the_network_counts_the_path_in_thousandths(episodes: Episodes) -> None:
    policy, seen = build(CONFIG, episodes), []
    policy.trunk.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    condition = policy.encode({"state": torch.zeros(1, 1, 2), "environment": torch.zeros(1, 1, 3)})
    policy.predict_velocity(torch.zeros(1, 4, 2), torch.tensor(0.25), condition)
    assert seen[0].item() == 250


def test_an_unknown_time_distribution_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        FlowConfig(time="unifrom")  # pyright: ignore[reportArgumentType]
