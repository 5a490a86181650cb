"""Straight ways: what pairs of noise and the teacher's action make of a flow."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.windows import Batch, Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import build_policy, make_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.reflow import ReflowConfig, ReflowPolicy, Solver
from sensorimotor.policies.sampling import DDIM, FlowEuler, FlowHeun, Trace

CONFIG = ReflowConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=1, execute=1),
    trunk=MLPConfig(width=16, depth=1, step_width=8),
    solver=FlowEuler(steps=3),
)
IDENTITY = {key: (torch.zeros(1), torch.ones(1)) for key in ("state", "action")}


def taught_by(teacher: GenerativePolicy, solver: Solver = CONFIG.solver) -> ReflowPolicy:
    policy = build_policy(replace(CONFIG, solver=solver), teacher.spec, Normalizer(IDENTITY))
    assert isinstance(policy, ReflowPolicy)
    policy.learn_from(teacher)
    return policy


def batch(count: int) -> Batch:
    return Batch(
        {"state": torch.zeros(count, 1, 1)},
        torch.full((count, 1, 1), 9.0),
        torch.ones(count, 1, dtype=torch.bool),
    )


def test_pairs_are_noise_and_where_the_teacher_takes_it(gaussian: Callable) -> None:
    teacher = gaussian(0.5, 0.04)
    student = taught_by(teacher, FlowHeun(steps=60, correct_last=True))
    noise = torch.randn(500, 1, 1, generator=torch.Generator().manual_seed(0))
    action = student.taught(teacher.encode({"state": torch.zeros(500, 1, 1)}), noise)
    torch.testing.assert_close(action, 0.5 + 0.2 * noise, atol=5e-3, rtol=0)


def test_after_one_step_reflow_is_where_a_flow_needs_many(gaussian: Callable) -> None:
    # N(0.5, 0.2^2): the teacher's own single step from noise 1 ends at the mean, 0.5; its way ends at 0.7.
    teacher = gaussian(0.5, 0.04)
    seen = {"state": torch.zeros(1, 1, 1)}
    one, noise = FlowEuler(steps=1), torch.ones(1, 1, 1, 1)
    assert teacher.sample(seen, noise=noise, sampler=one).item() == pytest.approx(0.5, abs=1e-5)
    student = taught_by(teacher, FlowHeun(steps=10, correct_last=True))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        student(batch(128), generator).backward()
        optimizer.step()
        schedule.step()
    trace = Trace()
    reached = student.eval().sample(seen, noise=noise, trace=trace)
    assert reached.item() == pytest.approx(0.7, abs=0.03)
    assert trace.evaluations is not None
    assert trace.evaluations.tolist() == [[1]]


def test_the_loss_is_zero_for_the_straight_way_whatever_was_demonstrated(gaussian: Callable) -> None:
    student = taught_by(gaussian(0.5, 0.0))

    class Straight(torch.nn.Module):
        def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
            return (x - 0.5) / (step / 1000).view(-1, 1, 1)

    student.trunk = Straight()
    assert student(batch(64), torch.Generator().manual_seed(0)).item() < 1e-6


@pytest.mark.parametrize("solver", [DDIM(steps=3), FlowEuler(steps=3)])
def test_a_diffusion_policy_can_teach(episodes: Episodes, solver: DDIM | FlowEuler) -> None:
    config = replace(CONFIG, chunk=ChunkConfig(horizon=4, execute=2), solver=solver)
    teacher = make_policy(DiffusionConfig(chunk=config.chunk, trunk=config.trunk), episodes)
    assert isinstance(teacher, GenerativePolicy)
    student = make_policy(config, episodes, teacher=teacher)
    assert isinstance(student, ReflowPolicy)
    windows = Windows(episodes, student.spec).batch(np.arange(4))
    told = teacher.encode(windows.observation)
    noise = torch.randn(4, 4, 2)
    action = student.taught(told, noise)
    sampled = teacher.sample(windows.observation, noise=noise[:, None], sampler=solver)
    torch.testing.assert_close(teacher.unnormalize_action(action, told), sampled[:, 0])
    assert torch.isfinite(student(windows, torch.Generator().manual_seed(0)))


def test_a_solver_must_start_from_the_noise_it_is_paired_with() -> None:
    with pytest.raises(ConfigError, match=r"solver\.temperature must be 1, got 0\.5"):
        replace(CONFIG, solver=FlowEuler(temperature=0.5))
