"""Small trainings with a known outcome: demonstrations that go around an obstacle on either side."""

import math
from dataclasses import replace

import pytest
import torch

from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig, EnergyPolicy
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import PolicyConfig, build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler
from sensorimotor.policies.unroll import Unroll

SPEC = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(2,)), control_hz=10)
CHUNK = ChunkConfig(observation_steps=1, horizon=8, execute=8)
TRUNK = MLPConfig(width=128, depth=1, expansion=1, step_width=16)


def demonstrate(count: int, generator: torch.Generator) -> Batch:
    """Arcs from 0 to height y_g, over or under the straight line at random."""
    goal = torch.rand(count, 1, generator=generator) - 0.5
    sign = 2.0 * torch.randint(2, (count, 1), generator=generator) - 1
    t = torch.linspace(0, 1, 8)
    arcs = torch.stack([(0.8 * t).expand(count, -1), goal * t + 0.6 * sign * torch.sin(math.pi * t)], dim=-1)
    noise = 0.01 * torch.randn(arcs.shape, generator=generator)
    return Batch({"state": goal[:, None]}, arcs + noise, torch.ones(count, 8, dtype=torch.bool))


def learn(config: PolicyConfig, updates: int) -> Policy:
    identity = Normalizer(
        {"state": (torch.zeros(1), torch.ones(1)), "action": (torch.zeros(2), torch.ones(2))}
    )
    policy = build_policy(config, CHUNK.apply(SPEC), identity)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        policy(demonstrate(128, generator), generator).backward()
        optimizer.step()
    return policy.eval()


def sides(policy: Policy, **options: object) -> tuple[float, float]:
    """(share of chunks through the forbidden middle, share above the straight line)."""
    generator = torch.Generator().manual_seed(1)
    goal = torch.rand(1000, 1, 1, generator=generator) - 0.5
    chunk = policy.sample({"state": goal}, generator=generator, **options)[:, 0]  # pyright: ignore
    middle = chunk[:, 3:5, 1].mean(dim=1) - goal[:, 0, 0] / 2
    return (middle.abs() < 0.3).float().mean().item(), (middle > 0).float().mean().item()


def test_regression_goes_through_the_middle() -> None:
    assert sides(learn(RegressorConfig(chunk=CHUNK, trunk=TRUNK), 150))[0] == 1.0


def test_diffusion_goes_around_on_both_sides() -> None:
    policy = learn(DiffusionConfig(chunk=CHUNK, trunk=TRUNK), 600)
    for sampler in (DDIM(), DDPM()):
        collapse, upper = sides(policy, sampler=sampler)
        assert collapse < 0.2
        assert upper == pytest.approx(0.5, abs=0.2)


def test_flow_goes_around_on_both_sides_unless_it_takes_one_step() -> None:
    policy = learn(FlowConfig(chunk=CHUNK, trunk=TRUNK), 600)
    collapse, upper = sides(policy)
    assert collapse < 0.2
    assert upper == pytest.approx(0.5, abs=0.2)
    # At s = 1 the best velocity is eps - E[a | o]: a single step lands on the mean of both sides.
    assert sides(policy, sampler=FlowEuler(steps=1))[0] > 0.9


ENERGY = EnergyConfig(chunk=CHUNK, trunk=EnergyMLPConfig(width=128, depth=1, expansion=1))


def test_an_energy_keeps_both_sides_and_knows_what_was_demonstrated() -> None:
    policy = learn(ENERGY, 900)
    assert isinstance(policy, EnergyPolicy)
    collapse, upper = sides(policy, sampler=Descent(steps=10))
    assert collapse < 0.2
    assert upper == pytest.approx(0.5, abs=0.2)
    batch = demonstrate(1000, torch.Generator().manual_seed(2))
    disturbed = batch.action + 0.3 * torch.randn(
        batch.action.shape, generator=torch.Generator().manual_seed(3)
    )
    condition = policy.encode(batch.observation)
    expert, other = (policy.energy(x, condition) for x in (batch.action, disturbed))
    assert (expert < other).float().mean() > 0.9
    # Four committed points say which side it is; the rest of the chunk follows.
    chunk = policy.sample(batch.observation, prefix=batch.action[:, :4], sampler=Descent(steps=10))[:, 0]
    assert (
        (chunk[:, 4:6, 1].mean(dim=1) - batch.action[:, 4:6, 1].mean(dim=1)).abs() < 0.3
    ).float().mean() > 0.95


def test_a_descent_that_starts_from_noise_and_is_pulled_to_one_end_goes_through_the_middle() -> None:
    still = Unroll(steps=2, extra=0, size_spread=1.0, noise=(0.0, 0.0))
    policy = learn(replace(ENERGY, objective="regress", unroll=still), 150)
    assert sides(policy, sampler=Descent(steps=2))[0] > 0.9
