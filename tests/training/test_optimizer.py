"""AdamW and its state as named tensors."""

import pytest
import torch
from torch import nn
from toy_training import toy_config

from sensorimotor.data.errors import CheckpointError, ConfigError
from sensorimotor.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer


def model(width: int = 4) -> nn.Linear:
    layer = nn.Linear(3, width)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 1.0)
    return layer


def step(layer: nn.Linear, optimizer: torch.optim.Optimizer, x: float) -> None:
    layer(torch.full((1, 3), x)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(("only_matrices", "bias"), [(True, 1.0), (False, 0.95)])
def test_decay_without_gradient_shrinks_what_is_decayed(only_matrices: bool, bias: float) -> None:
    layer = model()
    config = toy_config(learning_rate=0.1, weight_decay=0.5, decay_matrices_only=only_matrices)
    optimizer = make_optimizer(layer, config)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((4, 3), 0.95))
    torch.testing.assert_close(layer.bias.detach(), torch.full((4,), bias))


def test_frozen_weights_are_left_alone_and_all_frozen_is_refused() -> None:
    layer = model()
    layer.weight.requires_grad_(False)
    assert [p.shape for g in make_optimizer(layer, toy_config()).param_groups for p in g["params"]] == [(4,)]
    layer.bias.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter"):
        make_optimizer(layer, toy_config())


@pytest.mark.parametrize("regrouped", [False, True])
def test_restored_state_makes_the_same_next_step(regrouped: bool) -> None:
    first, config = model(), toy_config(weight_decay=0.0)
    optimizer = make_optimizer(first, config)
    for x in (1.0, -0.5, 2.0):
        step(first, optimizer, x)
    second = model()
    second.load_state_dict(first.state_dict())
    other = make_optimizer(second, toy_config(weight_decay=0.0, decay_matrices_only=regrouped))
    restore_optimizer(second, other, optimizer_tensors(first, optimizer))
    step(first, optimizer, 0.3)
    step(second, other, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_configuration_wins_over_the_checkpoint() -> None:
    layer = model()
    optimizer = make_optimizer(layer, toy_config())
    step(layer, optimizer, 1.0)
    other = make_optimizer(layer, toy_config(betas=(0.5, 0.6)))
    restore_optimizer(layer, other, optimizer_tensors(layer, optimizer))
    assert other.param_groups[0]["betas"] == (0.5, 0.6)


def test_state_of_another_model_is_refused_by_name() -> None:
    layer = model()
    optimizer = make_optimizer(layer, toy_config())
    step(layer, optimizer, 1.0)
    tensors = optimizer_tensors(layer, optimizer)
    wider = model(5)
    with pytest.raises(CheckpointError, match="'weight' has shapes"):
        restore_optimizer(wider, make_optimizer(wider, toy_config()), tensors)
    with pytest.raises(CheckpointError, match="names 'head', which the model lacks"):
        restore_optimizer(layer, make_optimizer(layer, toy_config()), {"head/exp_avg": torch.ones(1)})
