"""The loss that is trained on, worked out again from its parts: who is asked, about what, and with which sign."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch

from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.rl.cal_ql import CalQLConfig, CalQLCritic
from sensorimotor.rl.factory import make_critic, make_transitions
from sensorimotor.rl.iql import IQLConfig, IQLCritic

CHUNK = ChunkConfig(observation=("state",), observation_steps=1, horizon=2, execute=2)


def apart(critic: torch.nn.Module) -> None:
    """Give every network weights of its own, the slow copies among them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in critic.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("calibrated", [True, False])
def test_cal_ql_rivals_are_drawn_here_and_there_and_bounded_by_returns(
    make_episodes: Callable, calibrated: bool
) -> None:
    episodes, n = make_episodes(success=[True, False, True]), 3
    config = CalQLConfig(chunk=CHUNK, hidden=(8, 8), samples=n, alpha=2.0, calibrated=calibrated)
    critic = make_critic(config, episodes)
    assert isinstance(critic, CalQLCritic)
    apart(critic)
    batch = make_transitions(critic, episodes).batch(np.arange(28))
    critic(batch, torch.Generator().manual_seed(0))

    generator = torch.Generator().manual_seed(0)
    here, here_density = critic.actor.sample(critic.sight(batch.observation, critic.normalizer), n, generator)
    there, there_density = critic.actor.sample(critic.sight(batch.later, critic.normalizer), n, generator)
    ahead = critic.target.heads(critic.target.encoder(batch.later, critic.normalizer), there)
    y = batch.reward + batch.discount * ahead.amin(dim=0).amax(dim=1)
    uniform = 2 * torch.rand(here.shape, generator=generator) - 1
    features = critic.online.encoder(batch.observation, critic.normalizer)

    def q(actions: torch.Tensor) -> torch.Tensor:
        return critic.online.heads(features, actions)

    floor = batch.returns[:, None] if calibrated else torch.full((28, 1), -torch.inf)
    terms = torch.cat(
        [
            q(uniform) - 4 * log(0.5),
            torch.maximum(q(here), floor) - here_density,
            torch.maximum(q(there), floor) - there_density,
        ],
        dim=2,
    )
    data = q(critic.normalize_action(batch.action[:, None], batch.observation))[..., 0]
    health = critic.health()
    assert health["conservative_gap"] == pytest.approx(
        (terms.logsumexp(dim=2) - data).mean().item(), rel=1e-4
    )
    assert health["td_loss"] == pytest.approx((data - y).square().mean().item(), rel=1e-4)
    assert health["td_target"] == pytest.approx(y.mean().item(), rel=1e-4)


def test_iql_asks_slow_copies_and_imitates_what_is_better_than_usual(make_episodes: Callable) -> None:
    episodes = make_episodes(success=[True, False, True])
    critic = make_critic(IQLConfig(chunk=CHUNK, hidden=(8, 8), expectile=0.8, sharpness=0.5), episodes)
    assert isinstance(critic, IQLCritic)
    apart(critic)
    batch = make_transitions(critic, episodes).batch(np.arange(28))
    loss = critic(batch, torch.Generator().manual_seed(0))

    action = critic.normalize_action(batch.action[:, None], batch.observation)
    slow = critic.target.encoder(batch.observation, critic.normalizer)
    worth = critic.target.heads(slow, action)[..., 0].amin(dim=0)
    y = batch.reward + batch.discount * critic.usual_target(
        critic.target.encoder(batch.later, critic.normalizer)
    )
    features = critic.online.encoder(batch.observation, critic.normalizer)
    better = worth - critic.usual(features)
    value_loss = (torch.where(better < 0, 0.2, 0.8) * better.square()).mean()
    error = (critic.online.heads(features, action)[..., 0] - y).square().mean()
    density = critic.actor.log_density(critic.sight(batch.observation, critic.normalizer), action)[:, 0]
    imitation = -((0.5 * better).exp().clamp(max=100.0) * density).mean()
    assert loss.item() == pytest.approx((value_loss + error + imitation).item(), rel=1e-4)
    assert better.abs().max() > 0.01
