"""Which goals the table of `push_t` shows, and what the instruction says that names one of them."""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from ..data.schema import nearest
from .push_t_geometry import GOAL

Goals = Literal["centre", "two"]

MODEL_FILE = Path(__file__).parent / "assets" / "push_t.xml"
INSTRUCTIONS = ("push the T to the left goal", "push the T to the right goal")
_TWO = np.array([[-0.1, 0.0, -np.pi / 2], [0.1, 0.0, -np.pi / 2]])  # side by side, stems towards the reader
_DRAWN_FROM = 2  # second word of the seed; 1 is the expert's


def check_goals(goals: str) -> None:
    """Raise unless there is a table with these goals."""
    if goals not in get_args(Goals):
        raise ConfigError(f"unknown goals {goals!r}; {nearest(goals, get_args(Goals))}")


def goal_poses(goals: Goals) -> NDArray[np.float64]:
    """(G, 3) poses of all goals on the table."""
    return GOAL[None] if goals == "centre" else _TWO


def choose_goals(seeds: Sequence[int], goals: Goals) -> NDArray[np.int64]:
    """(N,) number of the goal that each world's instruction names, each from its own seed alone."""
    count = len(goal_poses(goals))
    if count == 1:
        return np.zeros(len(seeds), dtype=np.int64)
    return np.array([np.random.default_rng([int(seed), _DRAWN_FROM]).integers(count) for seed in seeds])


def instructions(chosen: NDArray[np.int64]) -> NDArray[np.str_]:
    """(N,) what the worlds with these of two goals are told."""
    return np.array(INSTRUCTIONS)[chosen]


def load_model(goals: Goals = "centre") -> Any:
    """The compiled model; positions are block x, y, yaw, pusher x, y. Goals are drawn and never touched."""
    if goals == "centre":
        return mujoco.MjModel.from_xml_path(str(MODEL_FILE))
    spec = mujoco.MjSpec.from_file(str(MODEL_FILE))
    first = spec.body("goal")
    bodies = [first, *(spec.worldbody.add_body(name=f"goal_{i}") for i in range(1, len(goal_poses(goals))))]
    for body, (x, y, yaw) in zip(bodies, goal_poses(goals), strict=True):
        body.pos, body.quat = [x, y, 0.0], [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        body.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    for body in bodies[1:]:
        for geom in first.geoms:
            body.add_geom(
                type=geom.type,
                size=geom.size,
                pos=geom.pos,
                rgba=geom.rgba,
                group=geom.group,
                contype=0,
                conaffinity=0,
                mass=0.0,
            )
    return spec.compile()
