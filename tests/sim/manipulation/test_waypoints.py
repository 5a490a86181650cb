"""The expert: it solves its tasks, from its seed alone, and not always in the same way."""

from typing import Any

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.sim.demonstrator import expert_of, make_demonstrator
from sensorimotor.sim.expert import ExpertConfig
from sensorimotor.sim.manipulation.scene import TaskName
from sensorimotor.sim.manipulation.task import RobosuiteConfig, RobosuiteWorlds
from sensorimotor.sim.manipulation.waypoints import Waypoints, WaypointsConfig
from sensorimotor.sim.tasks import TASKS


def demonstrate(worlds: RobosuiteWorlds, seed: int, steps: int, **settings: Any) -> tuple[np.ndarray, bool]:
    """The actions taken from a start, and whether they solved it."""
    worlds.reset([seed] * worlds.worlds)
    expert = Waypoints(WaypointsConfig(**settings), worlds)
    expert.reset(np.random.default_rng([seed, 1]))
    taken = []
    for _ in range(steps):
        taken.append(expert.act())
        if worlds.step(np.stack([taken[-1]] * worlds.worlds)).success[0]:
            return np.array(taken), True
    return np.array(taken), False


@pytest.mark.parametrize(("task", "seeds"), [("lift", (0, 1, 2)), ("can", (0,)), ("square", (2,))])
def test_the_expert_solves_its_tasks(
    worlds: dict[TaskName, RobosuiteWorlds], task: Any, seeds: tuple
) -> None:
    for seed in seeds:
        taken, solved = demonstrate(worlds[task], seed, 300)
        assert solved
        assert taken.dtype == np.float32
        assert (np.abs(taken) <= 1).all()


def test_a_seed_means_the_same_demonstration(lift: RobosuiteWorlds) -> None:
    first, second, other = (demonstrate(lift, seed, 12)[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_one_start_is_demonstrated_in_many_ways(lift: RobosuiteWorlds) -> None:
    lift.reset([3, 3])
    expert = Waypoints(WaypointsConfig(), lift)
    first = []
    for number in range(20):
        expert.reset(np.random.default_rng(number))
        first.append(expert.act()[:3])
    assert (np.std(first, axis=0) > 0.02).all()


def test_an_expert_that_has_lost_the_object_begins_again(lift: RobosuiteWorlds) -> None:
    lift.reset([0, 0])
    expert = Waypoints(WaypointsConfig(noise=0.0), lift)
    expert.reset(np.random.default_rng(0))
    while expert.act()[6] < 0:  # until the fingers close on the cube
        lift.step(np.stack([expert.act()] * 2))
    state = lift.state
    state[:, 1 + 9 : 1 + 11] += 0.08  # somebody takes the cube away
    lift.restore(state)
    taken = [expert.act() for _ in range(2)]
    for _ in range(120):
        taken.append(expert.act())
        if lift.step(np.stack([taken[-1]] * 2)).success[0]:
            break
    grips = np.sign([a[6] for a in taken])
    assert (np.diff(grips) != 0).sum() >= 2  # closed, opened, closed again
    assert lift.successes()[0]


def test_every_task_has_its_own_expert() -> None:
    assert isinstance(expert_of(TASKS["can"]), WaypointsConfig)
    assert isinstance(expert_of(TASKS["push_t"]), ExpertConfig)
    with pytest.raises(ConfigError, match="lift is not demonstrated by ExpertConfig; expert=lift is"):
        make_demonstrator(RobosuiteConfig(), ExpertConfig())


@pytest.mark.parametrize(
    "values", [{"speed": (0.0, 1.0)}, {"speed": (0.9, 0.5)}, {"gain": 3.0}, {"noise": 2.0}, {"memory": 1.0}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        WaypointsConfig(**values)
