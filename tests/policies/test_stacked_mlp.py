from dataclasses import replace

import pytest
import torch

from sensorimotor.policies.mlp import MLPConfig, ResidualMLP
from sensorimotor.policies.stacked_mlp import StackedMLP

CONFIG = MLPConfig(width=16, depth=2, step_width=8, dropout=0.2)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws is the same in every run."""
    torch.manual_seed(0)


def networks(config: MLPConfig, count: int = 3) -> list[ResidualMLP]:
    """Networks whose weights are all random, those that begin at zero too."""
    made = [ResidualMLP(config, action_dim=2, horizon=4, condition_dim=6).eval() for _ in range(count)]
    with torch.no_grad():
        for weight in (w for network in made for w in network.parameters()):
            weight.add_(0.1 * torch.randn_like(weight))
    return made


@pytest.mark.parametrize("modulation", [False, True])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_stack_answers_as_its_networks_do(modulation: bool, rows: int) -> None:
    made = networks(replace(CONFIG, modulation=modulation))
    x, condition = torch.randn(3, rows, 4, 2), torch.randn(3, rows, 2, 3)
    stack = StackedMLP(made)
    for step in (torch.tensor(300.0), 1000 * torch.rand(rows)):
        steps = step if step.ndim == 0 else step.repeat(3)
        with torch.no_grad():
            found = stack(x.flatten(0, 1), steps, condition.flatten(0, 1)).unflatten(0, (3, rows))
            expected = torch.stack([n(a, step, c) for n, a, c in zip(made, x, condition, strict=True)])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_stack_can_be_differentiated_in_its_chunks_and_holds_copies() -> None:
    made = networks(CONFIG, 2)
    stack, step = StackedMLP(made), torch.tensor(5.0)
    x, condition = torch.randn(2, 4, 2, requires_grad=True), torch.randn(2, 2, 3)
    (found,) = torch.autograd.grad(stack(x, step, condition).square().sum(), x)
    each = [n(x[i : i + 1], step, condition[i : i + 1]) for i, n in enumerate(made)]
    (expected,) = torch.autograd.grad(torch.cat(each).square().sum(), x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not list(stack.parameters())
    before = stack(x, step, condition)
    with torch.no_grad():
        made[0].outlet.weight.zero_()
    assert torch.equal(stack(x, step, condition), before)
