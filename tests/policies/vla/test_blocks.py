"""Norms, gates and the action expert's ends, against their equations."""

import math

import pytest
import torch

from sensorimotor.policies.embedding import periodic
from sensorimotor.policies.vla.blocks import AdaptiveRMSNorm, GatedMLP, RMSNorm
from sensorimotor.policies.vla.expert import ActionExpert

X = torch.tensor([[[3.0, -4.0]]])  # of root mean square sqrt(12.5)
UNIT = X / math.sqrt(12.5)


@pytest.mark.parametrize(("offset", "scale"), [(1.0, 1.25), (0.0, 0.25)])
def test_gemma_learns_the_difference_from_one_and_llama_the_scale(offset: float, scale: float) -> None:
    norm = RMSNorm(2, offset=offset, epsilon=1e-6)
    torch.testing.assert_close(norm(X)[0], UNIT)
    torch.nn.init.constant_(norm.weight, 0.25)
    torch.testing.assert_close(norm(X)[0], scale * UNIT)


def test_a_condition_scales_shifts_and_gates() -> None:
    """All of the modulation's outputs are 0.5 times the condition's sum, here 1."""
    norm = AdaptiveRMSNorm(2, epsilon=1e-6)
    normed, gate = norm(X, torch.ones(1, 2))
    torch.testing.assert_close(normed, UNIT)
    assert gate is not None
    assert not gate.any()
    torch.nn.init.constant_(norm.modulation.weight, 0.5)
    normed, gate = norm(X, torch.ones(1, 2))
    torch.testing.assert_close(normed, 2 * UNIT + 1)
    torch.testing.assert_close(gate, torch.ones(1, 1, 2))


@pytest.mark.parametrize(("activation", "value"), [("gelu", 0.841192), ("silu", 0.731059)])
def test_the_gate_is_activated_and_the_other_branch_is_not(activation, value: float) -> None:
    """One unit with weights 1, 3 and 1 at x = 1: 3 times the activation of 1."""
    mlp = GatedMLP(1, 1, activation)
    for layer, weight in ((mlp.gate, 1.0), (mlp.up, 3.0), (mlp.down, 1.0)):
        torch.nn.init.constant_(layer.weight, weight)
    assert mlp(torch.ones(1)).item() == pytest.approx(3 * value, abs=1e-5)


def test_time_is_joined_to_every_action() -> None:
    torch.manual_seed(0)
    expert = ActionExpert(8, 3, "concat")
    x, s = torch.randn(4, 5, 3), torch.rand(4)
    time = periodic(1000 * s, 8)[:, None].expand(-1, 5, -1)
    both = torch.cat([expert.action_in(x), time], dim=-1)
    expected = expert.time_out(torch.nn.functional.silu(expert.time_in(both)))
    tokens, condition = expert.tokens(x, s)
    assert condition is None
    torch.testing.assert_close(tokens, expected)


def test_time_is_a_condition_and_leaves_actions_alone() -> None:
    expert = ActionExpert(8, 3, "adarms")
    x, s = torch.randn(4, 5, 3), torch.rand(4)
    tokens, condition = expert.tokens(x, s)
    assert torch.equal(tokens, expert.action_in(x))
    silu = torch.nn.functional.silu
    expected = silu(expert.time_out(silu(expert.time_in(periodic(1000 * s, 8)))))
    torch.testing.assert_close(condition, expected)
