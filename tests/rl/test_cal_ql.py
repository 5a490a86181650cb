"""The terms of Cal-QL with the numbers worked out by hand, and what they come to in the limits."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, log

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.rl.cal_ql import (
    CalQLConfig,
    CalQLCritic,
    Rivals,
    bound_rate,
    conservative_gap,
    td_target,
    terms,
)
from sensorimotor.rl.factory import make_critic, make_transitions

Q_DATA, RETURN = torch.tensor([-2.5]), torch.tensor([-3.0])


def rivals() -> tuple[Rivals, Tensor]:
    """Two samples per source, and the leaf that all their values come from: uniform, pi(s), pi(s')."""
    q = torch.tensor([[-4.0, -3, -6, -1, -9, -2]], requires_grad=True)
    density = torch.tensor([[0.3, -0.5, 0.1, 0.2]])
    return Rivals(q[:, :2], q[:, 2:], 2 * log(0.5), density), q


def near(value: Tensor, wanted: float) -> None:
    assert value.item() == pytest.approx(wanted, abs=1e-6)


def test_terms_and_their_sum() -> None:
    found, _ = rivals()
    wanted = torch.tensor([[-2.613706, -1.613706, -3.3, -0.5, -3.1, -2.2]])
    torch.testing.assert_close(terms(found, RETURN), wanted, atol=1e-6, rtol=0)
    near(terms(found, RETURN).logsumexp(-1), 0.069225)
    near(conservative_gap(Q_DATA, found, RETURN), 2.569225)


def test_without_calibration_and_without_importance() -> None:
    found, _ = rivals()
    near(conservative_gap(Q_DATA, found, None), 2.491658)
    near(conservative_gap(Q_DATA, found, RETURN, importance=False), 0.270369)


def test_a_return_of_minus_infinity_bounds_nothing() -> None:
    found, _ = rivals()
    for importance in (True, False):
        bounded = conservative_gap(Q_DATA, found, torch.tensor([-inf]), importance=importance)
        assert torch.equal(bounded, conservative_gap(Q_DATA, found, None, importance=importance))


def test_values_below_the_return_have_no_gradient() -> None:
    found, q = rivals()
    conservative_gap(Q_DATA, found, RETURN).sum().backward()
    assert q.grad is not None
    wanted = torch.tensor([[0.068363, 0.185829, 0, 0.565964, 0, 0.103392]])
    torch.testing.assert_close(q.grad, wanted, atol=1e-6, rtol=0)


def test_half_of_the_actors_actions_are_worth_less_than_the_data() -> None:
    near(bound_rate(rivals()[0].actor, RETURN), 0.5)


def test_the_target_takes_the_least_critic_before_the_best_action() -> None:
    ahead = torch.tensor([[[-5.0, -1, -3, -2]], [[-4.0, -2.5, -1, -2.2]]])
    near(td_target(torch.tensor([-1.0]), torch.tensor([0.98]), ahead), -3.156)
    near(td_target(torch.tensor([-1.0]), torch.tensor([0.0]), ahead), -1.0)


def losses(config: CalQLConfig, make_episodes: Callable) -> tuple[Tensor, dict[str, float]]:
    episodes = make_episodes()
    critic = make_critic(config, episodes)
    batch = make_transitions(critic, episodes).batch(np.arange(20))
    return critic(batch, torch.Generator().manual_seed(3)), critic.health()


def test_without_its_weight_the_regulariser_leaves_the_td_error(make_episodes: Callable) -> None:
    config = CalQLConfig(hidden=(16,), alpha=0.0)
    plain, health = losses(config, make_episodes)
    weighed, same = losses(replace(config, alpha=2.0), make_episodes)
    assert health == same
    torch.testing.assert_close(weighed - plain, torch.tensor(2 * health["conservative_gap"]))
    uncalibrated, _ = losses(replace(config, calibrated=False, importance=False), make_episodes)
    assert torch.equal(plain, uncalibrated)


def test_the_actor_learns_from_the_critics_and_teaches_them_nothing(make_episodes: Callable) -> None:
    episodes = make_episodes()
    critic = make_critic(CalQLConfig(hidden=(16,), alpha=0.0), episodes)
    assert isinstance(critic, CalQLCritic)
    batch = make_transitions(critic, episodes).batch(np.arange(20))
    features = critic.online.encoder(batch.observation, critic.normalizer)
    action, density = critic.actor.sample(
        critic.sight(batch.observation, critic.normalizer), 1, torch.Generator().manual_seed(0)
    )
    critic._actor_loss(features, action, density).backward()
    assert all(p.grad is None for p in critic.online.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.actor.parameters())
    # Its entropy is above -D at first, so the temperature falls.
    slope = critic.log_temperature.grad
    assert slope is not None
    assert slope > 0


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="alpha must be at least 0 and finite, got -1"):
        CalQLConfig(alpha=-1)
    with pytest.raises(ConfigError, match="samples must be at least 1, got 0"):
        CalQLConfig(samples=0)
    with pytest.raises(ConfigError, match="temperature must be positive and finite, got 0"):
        CalQLConfig(temperature=0)
