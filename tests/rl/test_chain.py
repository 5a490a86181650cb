"""A chain of five places whose right values are known: both critics find them.

Place s is observed as a number. An action above 0 steps right, any other left (and stays at the left end). Every step
costs 1 until the right end is reached, where the step that reaches it is the last.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec
from sensorimotor.rl.cal_ql import CalQLConfig
from sensorimotor.rl.factory import CriticConfig, make_critic, make_transitions
from sensorimotor.rl.iql import IQLConfig
from sensorimotor.rl.labels import LabelsConfig

PLACES, GAMMA = 5, 0.8
LABELS = LabelsConfig(source="rewards", discount=GAMMA)


def walks() -> Episodes:
    """Every step of the chain equally often, one per episode and repeated; both actions are as likely."""
    state, action, ends, over = [], [], [], []
    for s in range(PLACES):
        for a in (-1.0, 1.0):
            after = min(max(s + int(a), 0), PLACES)
            state += [s, after]
            action += [a, a]
            over += [after == PLACES, False]
            ends.append(len(state))
    # Each episode's second step is where the first one leads to; it is never learned from.
    return Episodes(
        spec=Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=1),
        observation={"state": np.array(state, dtype=np.float32)[:, None]},
        action=np.array(action, dtype=np.float32)[:, None],
        ends=np.array(ends),
        reward=-np.ones(len(state), dtype=np.float32),
        terminated=np.array(over),
    )


def fixed_point(worth: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Values (places, left or right) under a rule that makes of the values of both actions the value of the place."""
    q = np.zeros((PLACES, 2))
    for _ in range(500):
        v = np.append(worth(q), 0.0)
        left, right = v[np.maximum(np.arange(PLACES) - 1, 0)], v[np.arange(1, PLACES + 1)]
        q = -1 + GAMMA * np.stack([left, right], axis=1)
    return q


def expectile(q: NDArray[np.float64], tau: float = 0.9) -> NDArray[np.float64]:
    """Of two equally likely values: the greater counts tau, the smaller 1 - tau."""
    return tau * q.max(axis=1) + (1 - tau) * q.min(axis=1)


def learned(config: CriticConfig, updates: int) -> NDArray[np.float64]:
    episodes = walks()
    critic = make_critic(config, episodes)
    source = make_transitions(critic, episodes)
    batch = source.batch(np.arange(0, len(source), 2))
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        optimizer.zero_grad()
        critic(batch, generator).backward()
        optimizer.step()
        critic.after_update()
    state = torch.arange(PLACES, dtype=torch.float32).view(-1, 1, 1)
    both = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(PLACES, -1, -1, -1)
    with torch.no_grad():
        return critic.value({"state": state}, both).double().numpy()


def test_q_learning_finds_the_best_values() -> None:
    config = CalQLConfig(labels=LABELS, hidden=(64, 64), octaves=2, alpha=0.0, target_rate=0.02, samples=8)
    best = fixed_point(lambda q: q.max(axis=1))
    assert best[0] == pytest.approx([-(1 - GAMMA**6) / (1 - GAMMA), -(1 - GAMMA**5) / (1 - GAMMA)])
    np.testing.assert_allclose(learned(config, 1500), best, atol=0.1)


def test_iql_finds_the_values_of_its_expectile() -> None:
    config = IQLConfig(labels=LABELS, hidden=(64, 64), octaves=2, expectile=0.9, target_rate=0.02)
    np.testing.assert_allclose(learned(config, 1500), fixed_point(expectile), atol=0.1)


def test_the_conservative_critic_ranks_as_the_best_values_do() -> None:
    config = CalQLConfig(labels=LABELS, hidden=(64, 64), octaves=2, target_rate=0.02)
    q = learned(config, 800)
    assert (q[:, 1] > q[:, 0]).all()
