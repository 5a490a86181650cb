"""Energy policies in training: what learns, in which precision, and what is averaged."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.energy import EnergyConfig, EnergyPolicy
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.energy_transformer import EnergyTransformerConfig
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.unroll import Unroll
from sensorimotor.training.config import EmaConfig, TrainingConfig
from sensorimotor.training.ema import Ema, ema_decay
from sensorimotor.training.held_out import held_out_loss
from sensorimotor.training.optimizer import make_optimizer
from sensorimotor.training.workers import Workers

CONFIG = EnergyConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=2),
    trunk=EnergyMLPConfig(width=16, depth=1),
    objective="denoise",
)
TRANSFORMER = EnergyTransformerConfig(width=16, layers=1, observation_layers=1, heads=2)
RECIPE = replace(
    CONFIG,
    objective="regress",
    step=DescentStep(size=5.0, normalize=True, temperature=9.0),
    unroll=Unroll(steps=2),
)
OBJECTIVES = [CONFIG, replace(CONFIG, objective="eqm"), RECIPE]
IDS = ["denoise", "eqm", "regress"]


def build(config: EnergyConfig, episodes: Episodes, *, bend: float = 0.3) -> EnergyPolicy:
    """A policy whose energy is not nearly flat, as that of fresh weights is."""
    policy = make_policy(config, episodes)
    assert isinstance(policy, EnergyPolicy)
    generator = torch.Generator().manual_seed(0)
    for p in policy.trunk.parameters():
        if bend:
            torch.nn.init.normal_(p, std=bend, generator=generator)
    return policy.eval()


def observe(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = {"state": 2, "environment": 3}
    return {key: torch.rand(batch, 1, width, generator=generator) for key, width in widths.items()}


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_the_held_out_loss_is_measured_without_gradients(episodes: Episodes, config: EnergyConfig) -> None:
    policy = build(config, episodes)
    windows = Windows(episodes, policy.spec)
    workers = Workers(rank=0, count=1, device=torch.device("cpu"))
    loss = held_out_loss(policy, windows, workers, limit=16, size=8, seed=0)
    assert math.isfinite(loss)
    assert loss > 0
    assert loss == held_out_loss(policy, windows, workers, limit=16, size=8, seed=0)
    assert all(p.grad is None for p in policy.parameters())


@pytest.mark.parametrize("config", OBJECTIVES[::2], ids=IDS[::2])
def test_a_learned_step_size_is_a_parameter_that_learns_and_never_decays(
    episodes: Episodes, config: EnergyConfig
) -> None:
    policy = build(replace(config, learn_size=True), episodes)
    assert policy.log_size is not None
    assert policy.log_size.exp().item() == pytest.approx(config.step.size)
    optimizer = make_optimizer(policy, TrainingConfig(learning_rate=0.05, weight_decay=0.5))
    (group,) = (g for g in optimizer.param_groups if any(p is policy.log_size for p in g["params"]))
    assert group["weight_decay"] == 0
    before = policy.log_size.item()
    policy(Windows(episodes, policy.spec).batch(np.arange(8)), torch.Generator().manual_seed(0)).backward()
    assert policy.log_size.grad is not None
    assert policy.log_size.grad.abs() > 0
    optimizer.step()
    assert policy.log_size.item() != before
    assert build(config, episodes).log_size is None


def test_the_average_of_the_weights_holds_the_energy_network_and_the_step_size(episodes: Episodes) -> None:
    policy = build(replace(RECIPE, learn_size=True), episodes)
    ema = Ema(policy, EmaConfig(max_decay=0.5))
    ema.update()  # the first update forgets the fresh weights altogether
    with torch.no_grad():
        for p in policy.parameters():
            p += 1.0
    ema.update()
    raw = {name: p.detach().clone() for name, p in policy.named_parameters()}
    decay = ema_decay(2, ema.config)
    with ema.swapped():
        for name, p in policy.named_parameters():
            torch.testing.assert_close(p, raw[name] - decay)
        averaged = policy.sample(observe())
    assert not torch.allclose(averaged, policy.sample(observe()))
    assert {name.split(".")[0] for name in raw} == {"trunk", "log_size"}


def test_only_the_last_judged_step_keeps_a_graph_into_the_network(episodes: Episodes) -> None:
    """System 2 differentiates all steps, so its gradient differs; its loss does not."""
    batch = Windows(episodes, build(RECIPE, episodes).spec).batch(np.arange(8))
    losses, gradients = [], []
    for detach in (True, False):
        policy = build(replace(RECIPE, unroll=Unroll(steps=3, detach=detach)), episodes)
        loss = policy(batch, torch.Generator().manual_seed(0))
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_low_precision_rounds_neither_actions_nor_positions(episodes: Episodes, config: EnergyConfig) -> None:
    policy = build(replace(config, trunk=TRANSFORMER, relative="state"), episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    exact, known = policy.training_pair(batch, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        action, condition = policy.training_pair(batch, torch.Generator().manual_seed(0))
        loss = policy(batch, torch.Generator().manual_seed(0))
    assert torch.equal(action, exact)
    assert known.origin is not None
    assert condition.origin is not None
    assert torch.equal(condition.origin, known.origin)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.parameters())


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_low_precision_leaves_every_weight_its_gradient(episodes: Episodes, config: EnergyConfig) -> None:
    """Weights are rounded once per update; rounded where no gradient is taken, they would stop learning."""
    policy = build(replace(config, trunk=TRANSFORMER), episodes, bend=0.0)
    batch = Windows(episodes, policy.spec).batch(np.arange(16))
    gradients = []
    for low in (False, True):
        policy.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            policy(batch, torch.Generator().manual_seed(0)).backward()
        gradients.append([p.grad for p in policy.parameters()])
    for exact, rounded in zip(*gradients, strict=True):
        assert exact is not None
        assert rounded is not None
    flat = [torch.cat([g.flatten() for g in part]) for part in gradients]
    assert torch.cosine_similarity(flat[0], flat[1], dim=0) > 0.97
