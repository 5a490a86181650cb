"""Scenes take a second or more to build, so tests share them; every test begins with a reset."""

from collections.abc import Iterator

import pytest

from sensorimotor.sim.manipulation.scene import KINDS, TaskName
from sensorimotor.sim.manipulation.task import RobosuiteConfig, RobosuiteWorlds

REASON = (
    "robosuite is not installed: pip install --no-deps robosuite==1.5.2 and pip install numba scipy, "
    "with mujoco below 3.8"
)


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[TaskName, RobosuiteWorlds]]:
    """Two worlds of each task, in one thread."""
    pytest.importorskip("numba", reason=REASON, exc_type=ImportError)
    made: dict[TaskName, RobosuiteWorlds] = {}
    try:
        from sensorimotor.sim.manipulation.scene import quiet

        with quiet():
            pytest.importorskip("robosuite", reason=REASON, exc_type=ImportError)
        for task in KINDS:
            made[task] = RobosuiteWorlds(RobosuiteConfig(task=task, threads=1), worlds=2)
        yield made
    finally:
        for world in made.values():
            world.close()


@pytest.fixture(params=["lift", "can", "square"])
def pair(request: pytest.FixtureRequest, worlds: dict[TaskName, RobosuiteWorlds]) -> RobosuiteWorlds:
    """Two worlds, of each task in turn."""
    return worlds[request.param]


@pytest.fixture
def lift(worlds: dict[TaskName, RobosuiteWorlds]) -> RobosuiteWorlds:
    """Two worlds of `lift`."""
    return worlds["lift"]
