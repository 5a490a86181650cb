"""What is observed.

`state` is robomimic's `robot0_eef_pos` (3), `robot0_eef_quat` (4) and `robot0_gripper_qpos` (2) side by side;
`environment` is its `object`: the object's pose and where it lies from the gripper. Positions in metres in the world's
frame, quaternions (x, y, z, w).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.spec import Field, Spec
from .poses import inverse, multiply, rotate
from .scene import CONTROL_HZ, KINDS, TaskName

Array = NDArray[Any]

ACTION = ("x", "y", "z", "turn_x", "turn_y", "turn_z", "grip")
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


def make_spec(task: TaskName, images: Mapping[str, int]) -> Spec:
    """Fields and rate; `images` are sizes in px by camera."""
    near = ("from_hand_x", "from_hand_y", "from_hand_z")
    relative = (*near, *(f"from_hand_{q}" for q in _POSE[3:])) if KINDS[task].relative_first else near
    names = (*relative, *_POSE) if KINDS[task].relative_first else (*_POSE, *relative)
    observation = {
        "state": Field(shape=(9,), names=(*_POSE, "finger_1", "finger_2")),
        "environment": Field(shape=(len(names),), names=names),
    }
    for camera, size in images.items():
        observation[f"image.{camera}"] = Field(shape=(size, size, 3), dtype="uint8")
    return Spec(
        observation=observation,
        action=Field(shape=(7,), unit="1", low=(-1.0,) * 7, high=(1.0,) * 7, names=ACTION),
        control_hz=CONTROL_HZ,
    )


def describe_object(task: TaskName, hand: Array, pose: Array) -> Array:
    """`object` (N, 10 or 14) as robosuite 1.5 lays it out.

    Args:
        task: `lift` gives the pose and the way from the hand to the object in the world's frame; the others the
            object's pose in the frame of the hand, then the pose.
        hand: (N, 7) position and quaternion.
        pose: (N, 7) the object's.
    """
    away = pose[:, :3] - hand[:, :3]
    if not KINDS[task].relative_first:
        return np.concatenate([pose, away], axis=1)
    back = inverse(hand[:, 3:])
    turn = multiply(back, pose[:, 3:])
    turn = np.where(turn[:, 3:] < 0, -turn, turn)  # robosuite's choice between a quaternion and its negative
    return np.concatenate([rotate(back, away), turn, pose], axis=1)


def pose_of_object(task: TaskName, environment: Array) -> Array:
    """The object's pose (..., 7) within `environment`."""
    return environment[..., 7:14] if KINDS[task].relative_first else environment[..., :7]
