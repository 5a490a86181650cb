"""The expert: a planner that keeps its limits, repeats itself, and solves the task."""

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.sim.expert import Expert, ExpertConfig, distance_to_goal
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds
from sensorimotor.sim.push_t_geometry import GOAL, WORKSPACE

QUICK = ExpertConfig(candidates=12, horizon=8, threads=1)


def drive(config: ExpertConfig, *, seed: int = 0, steps: int = 12, draws: int = 0) -> np.ndarray:
    """Targets (steps, 2) of the expert on a world of push_t."""
    world, expert = PushTWorlds(PushTConfig(threads=1)), Expert(config)
    world.reset([seed])
    expert.reset(world.physics.qpos[0].copy(), np.random.default_rng(draws))
    targets = []
    for _ in range(steps):
        target = expert.act(world.physics.qpos[0].copy(), world.physics.qvel[0].copy())
        world.step(target[None])
        targets.append(target.copy())
    expert.close()
    return np.array(targets)


def test_the_same_draws_give_the_same_targets_whatever_the_threads() -> None:
    serial = drive(QUICK)
    np.testing.assert_array_equal(drive(QUICK), serial)
    threaded = ExpertConfig(candidates=12, horizon=8, threads=3)
    np.testing.assert_array_equal(drive(threaded), serial)
    assert not np.array_equal(drive(QUICK, draws=1), serial)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_targets_keep_the_speed_and_the_workspace(seed: int) -> None:
    world = PushTWorlds(PushTConfig(threads=1))
    start = world.reset([seed])["state"].astype(float)
    targets = np.concatenate([start, drive(QUICK, seed=seed)])
    assert np.linalg.norm(np.diff(targets, axis=0), axis=1).max() <= QUICK.speed + 1e-6
    assert np.abs(targets).max() < WORKSPACE


@pytest.mark.parametrize("fresh", [0.0, 1.0])
def test_plans_may_all_be_variations_or_all_be_fresh(fresh: float) -> None:
    targets = drive(ExpertConfig(candidates=12, horizon=8, threads=1, fresh=fresh))
    assert np.isfinite(targets).all()
    assert np.linalg.norm(np.diff(targets, axis=0), axis=1).max() > 0.0


def test_an_expert_starts_every_episode_afresh() -> None:
    world, expert = PushTWorlds(PushTConfig(threads=1)), Expert(QUICK)
    world.reset([4])
    qpos, qvel = world.physics.qpos[0].copy(), np.zeros(5)
    runs = []
    for _ in range(2):
        expert.reset(qpos, np.random.default_rng(0))
        runs.append([expert.act(qpos, qvel) for _ in range(5)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_at_the_goal_it_stays() -> None:
    """Standing still costs nothing there, so no candidate is cheaper than the plan to stay."""
    expert = Expert(QUICK)
    qpos = np.array([*GOAL, 0.1, -0.1])
    expert.reset(qpos, np.random.default_rng(0))
    beside = np.array([*GOAL, *(GOAL[:2] + np.array([-0.046, -0.046]))])  # the tip rests behind the bar
    expert.reset(beside, np.random.default_rng(0))
    targets = [expert.act(beside, np.zeros(5)) for _ in range(6)]
    np.testing.assert_allclose(targets, np.tile(beside[3:], (6, 1)), atol=1e-12)


@pytest.mark.parametrize("seed", [3, 17])
def test_it_solves_the_task(seed: int) -> None:
    world, expert = PushTWorlds(PushTConfig()), Expert()
    world.reset([seed])
    expert.reset(world.physics.qpos[0].copy(), np.random.default_rng([seed, 1]))
    for _ in range(world.max_steps):
        target = expert.act(world.physics.qpos[0].copy(), world.physics.qvel[0].copy())
        step = world.step(target[None])
        if step.terminated[0]:
            break
    assert step.score[0] >= 0.95


def test_the_distance_is_the_shift_where_nothing_is_turned() -> None:
    shifted = GOAL + np.array([[0, 0, 0], [0.03, 0, 0], [0.03, -0.04, 0]])
    np.testing.assert_allclose(distance_to_goal(shifted), [0.0, 0.03, 0.05], atol=1e-12)
    whole_turn = GOAL + np.array([[0, 0, 2 * np.pi]])
    np.testing.assert_allclose(distance_to_goal(whole_turn), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"candidates": 1}, "candidates"),
        ({"replan": 0}, "replan"),
        ({"replan": 9, "horizon": 8}, "replan"),
        ({"fresh": 1.5}, "fresh"),
        ({"speed": 0.0}, "speed"),
        ({"spread": -1.0}, "spread"),
    ],
)
def test_an_impossible_planner_is_refused(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ExpertConfig(**wrong)  # pyright: ignore[reportArgumentType]
