"""Step N MuJoCo worlds in native threads, bit for bit as one world would step alone.

`mujoco.rollout` starts the solver from a zero acceleration at every call. A single world that zeroes
`qacc_warmstart` before each control step (`advance_one`) therefore computes the same numbers, and no world depends on
the number of threads or on its neighbours.
"""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

import os
from typing import Any

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from ..data.errors import ConfigError, SimulationError

Array = NDArray[np.float64]

_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
_CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)


class BatchedPhysics:
    """N worlds of one model.

    Attributes:
        state: (N, S) full physics states: time, positions, velocities.
    """

    def __init__(self, model: mujoco.MjModel, *, worlds: int, substeps: int, threads: int = 0) -> None:
        """Allocate everything once.

        Args:
            model: shared by all worlds.
            worlds: N.
            substeps: simulator steps per control step.
            threads: native threads; 0 takes one per usable core. Never more than worlds.
        """
        if worlds < 1 or substeps < 1 or threads < 0:
            raise ConfigError(
                f"worlds and substeps must be at least 1 and threads at least 0, got {worlds}, {substeps}, {threads}"
            )
        self.threads = min(threads or usable_cores(), worlds)
        self.worlds, self.substeps = worlds, substeps
        self._nq, self._nv = model.nq, model.nv
        self._duration = substeps * model.opt.timestep
        size = mujoco.mj_stateSize(model, int(_PHYSICS))
        self.state = np.zeros((worlds, size))
        self._models = [model] * worlds
        self._datas = [mujoco.MjData(model) for _ in range(self.threads)]
        self._control = np.zeros((worlds, substeps, model.nu))
        self._trajectory = np.zeros((worlds, substeps, size))
        self._pool: Rollout | None = Rollout(nthread=self.threads if self.threads > 1 else 0)

    @property
    def qpos(self) -> Array:
        """(N, nq) view of the positions."""
        return self.state[:, 1 : 1 + self._nq]

    @property
    def qvel(self) -> Array:
        """(N, nv) view of the velocities."""
        return self.state[:, 1 + self._nq : 1 + self._nq + self._nv]

    def place(self, qpos: Array, qvel: Array | float = 0.0) -> None:
        """Set positions (N, nq) and velocities; the clocks start at zero."""
        self.state[:] = 0.0
        self.qpos[:] = qpos
        self.qvel[:] = qvel

    def advance(self, control: Array) -> None:
        """Hold `control` (N, nu) for one control step.

        Raises:
            SimulationError: naming the worlds whose control or state is not finite; `state` is then as before.
        """
        self.play(control[:, None])

    def play(self, control: Array) -> Array:
        """Hold each of T controls (N, T, nu) for one control step; the states after each, (N, T, S).

        One native call for all T steps. The result is a view that the next call overwrites.
        """
        if self._pool is None:
            raise SimulationError("these worlds are closed; build new ones")
        steps = control.shape[1]
        _raise_if_any(_not_finite(control), "an action that is not finite")
        total = steps * self.substeps
        if self._control.shape[1] != total:
            self._control = np.zeros((self.worlds, total, control.shape[2]))
            self._trajectory = np.zeros((self.worlds, total, self.state.shape[1]))
        self._control.reshape(self.worlds, steps, self.substeps, -1)[:] = control[:, :, None]
        self._pool.rollout(
            self._models,
            self._datas,
            self.state,
            self._control,
            control_spec=_CONTROL,
            skip_checks=True,
            nstep=total,
            state=self._trajectory,
        )
        last = self._trajectory[:, -1]
        # MuJoCo resets a diverged world to its default pose, time zero, and goes on; its clock tells.
        on_time = np.abs(last[:, 0] - self.state[:, 0] - steps * self._duration) < 0.5 * self._duration
        _raise_if_any(~on_time | _not_finite(last), "a state that is not finite")
        self.state[:] = last
        return self._trajectory[:, self.substeps - 1 :: self.substeps]

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def advance_one(model: mujoco.MjModel, data: mujoco.MjData, control: Array, *, substeps: int) -> None:
    """Hold `control` (nu,) for one control step of a single world; equals `BatchedPhysics.advance` bit for bit.

    Raises:
        SimulationError: if the control or the state is not finite.
    """
    _raise_if_any(_not_finite(control[None]), "an action that is not finite")
    data.ctrl[:] = control
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_step(model, data, nstep=substeps)
    _raise_if_any(np.array([data.warning.number.any()]), "a state that is not finite")


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _not_finite(rows: Array) -> NDArray[np.bool_]:
    """(N,) where a row (N, ...) holds a NaN or an infinity."""
    return np.logical_not(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))


def _raise_if_any(bad: NDArray[Any], what: str) -> None:
    if bad.any():
        worlds = np.flatnonzero(bad).tolist()
        raise SimulationError(
            f"world {worlds[0]} has {what} ({len(worlds)} of {len(bad)} worlds: {worlds[:8]}); "
            "check the actions, then reset"
        )
