"""Expectiles with the numbers worked out by hand."""

import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.rl.iql import IQLConfig, expectile_loss


@pytest.mark.parametrize(("tau", "wanted"), [(0.5, 1.5), (0.7, 1.9), (0.9, 2.5)])
def test_the_loss_is_least_at_the_expectile(tau: float, wanted: float) -> None:
    v = torch.tensor(wanted, requires_grad=True)
    expectile_loss(torch.arange(4.0) - v, tau).backward()
    assert v.grad is not None
    assert v.grad.abs() < 1e-6


def test_the_loss_by_hand() -> None:
    assert expectile_loss(torch.tensor([1.0, -1.0]), 0.7).item() == pytest.approx(0.5)


def test_the_middle_expectile_is_half_the_mean_squared_error() -> None:
    u = torch.randn(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expectile_loss(u, 0.5), u.square().mean() / 2)


def test_a_high_expectile_draws_the_value_up() -> None:
    v = torch.zeros((), requires_grad=True)
    expectile_loss(torch.tensor([1.0, -1.0]) - v, 0.7).backward()
    assert v.grad is not None
    assert v.grad < 0  # descent raises v


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expectile must lie in \(0, 1\), got 1"):
        IQLConfig(expectile=1.0)
    with pytest.raises(ConfigError, match="sharpness must be at least 0 and finite, got -1"):
        IQLConfig(sharpness=-1)
