"""Candidate plans: inside the limits, anchored where they should be, and reaching what they aim at."""

import numpy as np
import pytest

from sensorimotor.sim.push_t import PushTConfig, start_positions
from sensorimotor.sim.push_t_geometry import TIP_RADIUS, WORKSPACE, distance_to_block
from sensorimotor.sim.pushes import fresh_pushes, limited, variations

SPEED = 0.025


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def strides(plans: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Lengths (n, T) of every step of plans (n, T, 2) from `start` on."""
    begin = np.broadcast_to(start, plans[:, :1].shape)
    return np.linalg.norm(np.diff(np.concatenate([begin, plans], axis=1), axis=1), axis=2)


@pytest.mark.parametrize("seed", range(4))
def test_limited_plans_keep_the_speed_and_the_workspace(seed: int) -> None:
    wild = generator(seed).uniform(-1, 1, (20, 12, 2))
    start = np.array([0.2, -0.2])
    kept = limited(wild, start, speed=SPEED)
    assert strides(kept, start).max() <= SPEED * (1 + 1e-9)
    assert np.abs(kept).max() < WORKSPACE


def test_a_plan_within_the_limits_is_left_as_it_is() -> None:
    start = np.array([0.05, 0.0])
    calm = start + np.cumsum(generator().uniform(-0.01, 0.01, (5, 10, 2)), axis=1)
    np.testing.assert_allclose(limited(calm, start, speed=SPEED), calm, atol=1e-15)


def test_a_limited_plan_moves_straight_towards_a_far_target() -> None:
    far = np.full((1, 4, 2), [0.2, 0.0])
    np.testing.assert_allclose(
        limited(far, np.zeros(2), speed=SPEED)[0], [[0.025, 0], [0.05, 0], [0.075, 0], [0.1, 0]], atol=1e-12
    )


def test_the_first_variation_is_the_plan_itself() -> None:
    plan = generator().uniform(-0.1, 0.1, (16, 2))
    np.testing.assert_array_equal(variations(generator(1), plan, count=5, spread=0.01)[0], plan)


def test_variations_scatter_in_proportion_to_the_spread_and_grow_along_the_plan() -> None:
    plan = generator().uniform(-0.1, 0.1, (16, 2))
    small, large = (variations(generator(1), plan, count=2000, spread=s) - plan for s in (0.01, 0.02))
    np.testing.assert_allclose(large, 2 * small, atol=1e-12)
    scatter = small[1:].std(axis=(0, 2))
    # At the ends a knot stands alone: noise of size 1 times the mean square of a factor uniform in 0.1..1.5.
    factor = np.sqrt((1.5**3 - 0.1**3) / (3 * 1.4))
    assert scatter[-1] == pytest.approx(0.01 * factor, rel=0.05)
    assert scatter[0] == pytest.approx(0.3 * 0.01 * factor, rel=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_fresh_pushes_begin_at_the_pusher_and_are_no_faster_than_asked(seed: int) -> None:
    qpos = start_positions([seed], PushTConfig())[0]
    plans = fresh_pushes(generator(seed), qpos, count=50, steps=40, speed=SPEED)
    assert plans.shape == (50, 40, 2)
    assert strides(plans, qpos[3:]).max() <= SPEED * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_fresh_pushes_go_round_the_block_before_they_push_it(seed: int) -> None:
    """Drawn over the block where it stands, plans meet it and then go on for no longer than the longest push.

    A few graze a corner, or touch the block on their way into the corner behind the bar; the simulator judges those.
    """
    qpos = start_positions([seed], PushTConfig())[0]
    plans = fresh_pushes(generator(seed), qpos, count=100, steps=600, speed=0.003)
    gap = distance_to_block(qpos[:3], plans) - TIP_RADIUS
    overlapping = gap < -1e-5
    assert overlapping.any(axis=1).mean() > 0.97  # all but a few that graze a corner
    after = np.arange(600) >= np.argmax(overlapping, axis=1)[:, None]
    travelled = (strides(plans, qpos[3:]) * after)[overlapping.any(axis=1)].sum(axis=1)
    assert np.mean(travelled < 0.16 + 0.006) > 0.95


def test_pushes_turn_with_the_world() -> None:
    """Rotating block and pusher about the block rotates every plan, draw by draw."""
    qpos = np.array([0.02, -0.03, 0.4, 0.15, 0.1])
    angle = 1.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = np.concatenate([qpos[:2], [qpos[2] + angle], qpos[:2] + turn @ (qpos[3:] - qpos[:2])])
    one, two = (fresh_pushes(generator(3), q, count=30, steps=16, speed=SPEED) for q in (qpos, turned))
    np.testing.assert_allclose(two - qpos[:2], (one - qpos[:2]) @ turn.T, atol=1e-9)
