"""Recordings in robomimic's own layout, so that its tools read ours and ours read its.

The four low-dimensional observations that robomimic trains on become `state` and `environment`, and back.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.episodes import Episodes
from ...data.errors import DataError
from ...data.schema import nearest
from ...data.spec import Field
from .observation import describe_object, make_spec
from .scene import KINDS, TaskName
from .task import RobosuiteWorlds

Array = NDArray[Any]

HAND = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
OBJECT = "object"
GROUPS = {"state": tuple(HAND), "environment": (OBJECT,)}  # robomimic's names within ours


def as_robomimic(episodes: Episodes, worlds: RobosuiteWorlds, states: Array, seeds: list[int]) -> Episodes:
    """Demonstrations under robomimic's names, with what its playback needs: states, model and environment.

    Args:
        episodes: as observed.
        worlds: where they were recorded.
        states: (N, S) the simulator's state before each action.
        seeds: the start of each episode.
    """
    state, fields = episodes.observation["state"], episodes.spec.observation
    edges = np.cumsum([0, *HAND.values()])
    parts = {
        name: np.ascontiguousarray(state[:, a:b])
        for name, a, b in zip(HAND, edges[:-1], edges[1:], strict=True)
    }
    pictures = {
        f"{key.removeprefix('image.')}_image": array
        for key, array in episodes.observation.items()
        if key.startswith("image.")
    }
    observation = {**parts, OBJECT: episodes.observation["environment"], **pictures}
    described = {
        name: Field(shape=array.shape[1:], dtype=array.dtype.name) for name, array in observation.items()
    }
    return replace(
        episodes,
        spec=replace(episodes.spec, observation=described | {OBJECT: fields["environment"]}),
        observation=observation,
        extra={"states": states},
        metadata={
            "task": worlds.config.task,
            "source": "waypoint expert",
            "seeds": seeds,
            "env_args": worlds.scene.description(),
            "model_file": worlds.scene.model_file(),
        },
    )


def demonstrations(raw: Episodes, task: TaskName) -> Episodes:
    """A robomimic recording of a task, of any robosuite version, as this task observes it.

    Versions before 1.5 list the object's pose before its place in the hand's frame, and for `lift` point from the
    object to the hand; `object` is therefore computed again from the pose. Pictures `<camera>_image` become
    `image.<camera>`; other observations are left out.

    Raises:
        DataError: if the recording is of another task, or one of the observations is missing or of another size.
    """
    _check(raw, task)
    state = np.concatenate([raw.observation[key] for key in HAND], axis=1)
    listed = raw.observation[OBJECT]
    first = _release(raw.metadata.get("env_args", {})) < (1, 5) or not KINDS[task].relative_first
    environment = describe_object(task, state[:, :7], listed[:, :7] if first else listed[:, 7:])
    observation = {"state": state.astype(np.float32), "environment": environment.astype(np.float32)}
    pictures = {key.removesuffix("_image"): a for key, a in raw.observation.items() if key.endswith("_image")}
    observation |= {f"image.{camera}": array for camera, array in pictures.items()}
    spec = make_spec(task, {camera: array.shape[1] for camera, array in pictures.items()})
    return replace(
        raw,
        spec=replace(spec, control_hz=raw.spec.control_hz),
        observation=observation,
        action=np.ascontiguousarray(raw.action, dtype=np.float32),
        extra={},
    )


def _check(raw: Episodes, task: TaskName) -> None:
    """Raise unless this is a recording of the task, with everything that it observes."""
    made = raw.metadata.get("env_args", {})
    found = made.get("env_name", KINDS[task].environment)
    if found != KINDS[task].environment:
        known = {kind.environment: name for name, kind in KINDS.items()}
        raise DataError(
            f"the recording is of {found}, task={task} is {KINDS[task].environment}; "
            + (f"use task={known[found]}" if found in known else f"known are {', '.join(known)}")
        )
    width = 14 if KINDS[task].relative_first else 10
    sizes = {**HAND, OBJECT: width}
    for key, size in sizes.items():
        array = raw.observation.get(key)
        if array is None:
            raise DataError(
                f"the recording lacks {key!r}, which task={task} needs; {nearest(key, raw.observation)}"
            )
        if array.shape[1:] != (size,):
            raise DataError(f"{key!r} holds {array.shape[1:]} numbers per step; task={task} observes {size}")
    if raw.action.shape[1] != 7:
        raise DataError(
            f"actions hold {raw.action.shape[1]} numbers; task={task} takes 7, a pose increment and the gripper"
        )


def _release(made: Mapping[str, Any]) -> tuple[int, ...]:
    """(major, minor) of the robosuite that recorded; robomimic wrote no version before 1.5 came."""
    words = str(made.get("env_version", "1.4")).split(".")
    return tuple(int(word) for word in words[:2] if word.isdigit())
