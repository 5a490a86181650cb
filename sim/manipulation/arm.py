"""The Panda's arm under robosuite's operational-space controller, without robosuite's own overhead.

An action is a pose increment of the point between the fingertips, scaled to 5 cm and 0.5 rad, and the gripper's
direction. The goal is the present pose plus the increment, and torques pull towards it at every simulator step, with
position and orientation decoupled and the redundant joint drawn to the posture of the start: Khatib 1987, equations 14
and 20, with robosuite's gains.
"""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .scene import CONTROL_HZ, REACH, TURN, Scene

try:
    from numba import njit
except ImportError:  # robosuite needs it as well, and says so before a scene is built

    def njit(**_: Any) -> Callable[[Any], Any]:
        """Leave the function as it is."""
        return lambda function: function


Array = NDArray[np.float64]

JOINTS = 7
_STIFFNESS, _POSTURE_STIFFNESS = 150.0, 10.0
_GRIP_SPEED = 0.2  # share of half the fingers' way per control step


class Arm:
    """One world: its state, and what the controller remembers.

    Attributes:
        data: the world's MuJoCo state.
    """

    def __init__(self, scene: Scene) -> None:
        """Allocate a world; `place` it before the first step."""
        self.model, self.data = scene.model, mujoco.MjData(scene.model)
        self._site = scene.site
        self._substeps = round(1 / (CONTROL_HZ * scene.model.opt.timestep))
        nv = scene.model.nv
        self._mass = np.zeros((nv, nv))
        self._jacobian = np.zeros((6, nv))
        self._posture = np.zeros(JOINTS)
        self._grip = np.zeros(2)
        limits = scene.model.actuator_ctrlrange
        self._limits = np.ascontiguousarray(limits[:JOINTS, 1])
        self._grip_centre, self._grip_half = limits[JOINTS:].mean(axis=1), np.ptp(limits[JOINTS:], axis=1) / 2

    def place(self, qpos: Array, qvel: Array, *, time: float = 0.0, posture: Array | None = None) -> None:
        """Begin at these positions and velocities; the present posture is kept to unless another is given."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.time = time
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self._posture[:] = qpos[:JOINTS] if posture is None else posture
        self._grip[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def advance(self, action: Array) -> bool:
        """Follow one action (7,) for one control step, clipped to [-1, 1]; whether the world is still sound."""
        model, data = self.model, self.data
        action = np.clip(action, -1.0, 1.0)
        self._grip[:] = np.clip(
            self._grip + np.array([-1.0, 1.0]) * _GRIP_SPEED * np.sign(action[6]), -1.0, 1.0
        )
        position, orientation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        goal, facing = np.zeros(3), np.zeros((3, 3))
        for substep in range(self._substeps):
            mujoco.mj_step1(model, data)
            if substep == 0:
                goal = position + REACH * action[:3]
                facing = rotation(TURN * action[3:6]) @ orientation
            mujoco.mj_fullM(model, self._mass, data.qM)
            mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
            _torques(
                data.ctrl,
                self._limits,
                goal,
                facing,
                position,
                orientation,
                data.qpos,
                data.qvel,
                self._jacobian,
                self._mass,
                data.qfrc_bias,
                self._posture,
            )
            data.ctrl[JOINTS:] = self._grip_centre + self._grip_half * self._grip
            mujoco.mj_step2(model, data)
        # The steps above leave poses one simulator step behind the positions.
        mujoco.mj_kinematics(model, data)
        return not data.warning.number.any() and bool(np.isfinite(data.qpos).all())


def rotation(turn: Array) -> Array:
    """(3, 3) rotation by |turn| rad about its direction."""
    angle = np.linalg.norm(turn)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


@njit(nogil=True, cache=True, error_model="numpy")
def _torques(
    control,
    limits,
    goal,
    facing,
    position,
    orientation,
    qpos,
    qvel,
    jacobian,
    mass,
    bias,
    posture,
) -> None:
    """Write the joint torques that pull the site to its goal into `control`."""
    n = len(limits)
    pull, wrench = np.zeros((6, 1)), np.empty((6, 1))
    pull[:3, 0] = goal - position
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        for axis in range(3):
            a, b = orientation[:, axis], facing[:, axis]
            pull[3 + k, 0] += 0.5 * (a[i] * b[j] - a[j] * b[i])
    reach = jacobian[:, :n]
    inertia = mass[:n, :n].copy()
    velocity = qvel[:n].copy().reshape(n, 1)
    pull = _STIFFNESS * pull - 2 * np.sqrt(_STIFFNESS) * _product(reach, velocity)

    compliance = _solve(inertia, reach.T)  # M^-1 J^T
    mobility = _product(reach, compliance)
    wrench[:3] = _solve(mobility[:3, :3], pull[:3])
    wrench[3:] = _solve(mobility[3:, 3:], pull[3:])
    torque = _product(reach.T, wrench)

    drawn = _POSTURE_STIFFNESS * (posture - qpos[:n]).reshape(n, 1)
    rest = _product(inertia, drawn - 2 * np.sqrt(_POSTURE_STIFFNESS) * velocity)
    # (I - Jbar J)^T rest, with Jbar = M^-1 J^T (J M^-1 J^T)^-1
    torque += rest - _product(reach.T, _solve(mobility, _product(compliance.T, rest)))
    for k in range(n):
        control[k] = min(max(torque[k, 0] + bias[k], -limits[k]), limits[k])


@njit(nogil=True, cache=True, error_model="numpy")
def _product(a, b):
    """The matrix product; for these sizes faster than a call of BLAS, and compiled sooner."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _solve(a, b):
    """A^-1 b for a symmetric positive definite A (n, n) and b (n, m), by Cholesky's factors."""
    n = len(a)
    low, x = np.zeros((n, n)), b.copy()
    for i in range(n):
        for j in range(i + 1):
            rest = a[i, j]
            for k in range(j):
                rest -= low[i, k] * low[j, k]
            low[i, j] = np.sqrt(rest) if i == j else rest / low[j, j]
    for column in range(x.shape[1]):
        for i in range(n):
            for k in range(i):
                x[i, column] -= low[i, k] * x[k, column]
            x[i, column] /= low[i, i]
        for i in range(n - 1, -1, -1):
            for k in range(i + 1, n):
                x[i, column] -= low[k, i] * x[k, column]
            x[i, column] /= low[i, i]
    return x
