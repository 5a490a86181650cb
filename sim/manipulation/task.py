"""robomimic's Lift, Can and Square (arXiv 2108.03298): N worlds of a robosuite scene, stepped in threads.

Actions are pose increments of the fingertips and the gripper's direction, in [-1, 1]; `observation.py` says what is
seen, after the step, where robosuite's own loop reports poses 2 ms older. Success is robosuite's: the cube 4 cm above
the table; the can in its bin, or the nut low on its peg, and let go.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...data.errors import ConfigError, SimulationError
from ...data.schema import nearest
from ..batch import usable_cores
from ..task import Step
from .observation import describe_object, make_spec
from .scene import Scene, TaskName

if TYPE_CHECKING:
    from ..render import Renderer

Array = NDArray[Any]
Camera = Literal["agentview", "robot0_eye_in_hand", "frontview", "birdview"]

_COLLISION_SHAPES = 0  # the group of geoms that robosuite hides from its pictures
_TABLE = 0.8  # m, the height of the table of `lift`
_NUT_TABLE = 0.82  # and of `square`
BIN = np.array([0.1975, 0.4025, 0.8])  # m, the middle of the floor of the bin for cans
PEG = np.array([0.23, 0.1])  # m, the middle of the square peg


@dataclass(frozen=True, kw_only=True)
class RobosuiteConfig:
    """The task.

    Attributes:
        task: which of the three.
        max_steps: control steps (0.05 s) until a world is truncated; 400 in robomimic's evaluations.
        images: whether observations hold a picture of every camera.
        cameras: which cameras; robomimic trains on these two.
        image_size: px.
        threads: 0 takes one per usable core.
    """

    task: TaskName = "lift"
    max_steps: int = 400
    images: bool = False
    cameras: tuple[Camera, ...] = ("agentview", "robot0_eye_in_hand")
    image_size: int = 84
    threads: int = 0

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskName):
            raise ConfigError(f"unknown task {self.task!r}; {nearest(self.task, get_args(TaskName))}")
        for camera in self.cameras:
            if camera not in get_args(Camera):
                raise ConfigError(f"unknown camera {camera!r}; {nearest(camera, get_args(Camera))}")
        if self.images and not self.cameras:
            raise ConfigError("images=true needs at least one of the cameras " + ", ".join(get_args(Camera)))
        if self.max_steps < 1 or not 8 <= self.image_size <= 512:
            raise ConfigError(
                "max_steps must be at least 1 and image_size within 8..512, "
                f"got {self.max_steps} and {self.image_size}"
            )
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 (one per core) or more, got {self.threads}")


class RobosuiteWorlds:
    """N worlds stepped together; satisfies `Task`.

    Each world computes the same numbers whatever runs beside it, and on any number of threads.
    """

    def __init__(self, config: RobosuiteConfig | None = None, *, worlds: int = 1) -> None:
        """Build the worlds; needs the extra `robomimic`. The first call must be `reset`.

        Raises:
            ConfigError: if robosuite is absent or does not run on the installed MuJoCo.
        """
        self.config = config or RobosuiteConfig()
        self.scene = Scene(self.config.task)
        from .arm import Arm  # after the scene, which says what to install; numba alone takes a second

        cameras: tuple[str, ...] = self.config.cameras if self.config.images else ()
        sizes: dict[str, int] = dict.fromkeys(cameras, self.config.image_size)
        self.spec = make_spec(self.config.task, sizes)
        self.max_steps = self.config.max_steps
        self.arms = [Arm(self.scene) for _ in range(worlds)]
        self.threads = min(self.config.threads or usable_cores(), worlds)
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self._elapsed = 0
        self._renderers: dict[tuple[str, int], Renderer] = {}

    @property
    def worlds(self) -> int:
        """N."""
        return len(self.arms)

    @property
    def state(self) -> Array:
        """(N, 1 + nq + nv) time, positions and velocities, as robomimic records `states`."""
        return np.stack([np.concatenate([[a.data.time], a.data.qpos, a.data.qvel]) for a in self.arms])

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Start every world anew, world i from seeds[i] alone, as robosuite draws its starts."""
        if len(seeds) != self.worlds:
            raise ConfigError(f"reset needs {self.worlds} seeds, one per world, got {len(seeds)}")
        for arm, seed in zip(self.arms, seeds, strict=True):
            arm.place(*self.scene.start(int(seed)))
        self._elapsed = 0
        return self._observe()

    def restore(self, state: Array) -> dict[str, Array]:
        """Place every world at a recorded state (N, 1 + nq + nv).

        The arm's posture there becomes the one it is drawn to, as at the start of an episode.
        """
        nq, nv = self.scene.model.nq, self.scene.model.nv
        if np.shape(state) != (self.worlds, 1 + nq + nv):
            raise ConfigError(f"states must be shaped ({self.worlds}, {1 + nq + nv}), got {np.shape(state)}")
        for arm, (time, *rest) in zip(self.arms, np.asarray(state, dtype=np.float64), strict=True):
            arm.place(np.array(rest[:nq]), np.array(rest[nq:]), time=time)
        self._elapsed = 0
        return self._observe()

    def step(self, action: Array) -> Step:
        """Move every arm by its action (N, 7) for 0.05 s.

        Raises:
            SimulationError: naming the worlds whose action or state is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.worlds, 7):
            raise ConfigError(f"actions must be shaped ({self.worlds}, 7), got {action.shape}")
        _raise_if_any(np.logical_not(np.isfinite(action).all(axis=1)), "an action that is not finite")
        run = map if self._pool is None else self._pool.map
        fine = np.fromiter(run(lambda arm, a: arm.advance(a), self.arms, action), dtype=bool)
        _raise_if_any(~fine, "a state that is not finite")
        self._elapsed += 1
        success = self.successes()
        return Step(
            observation=self._observe(),
            reward=success.astype(np.float64),
            terminated=success,
            truncated=~success if self._elapsed >= self.max_steps else np.zeros_like(success),
            success=success,
            score=success.astype(np.float64),
        )

    def successes(self) -> NDArray[np.bool_]:
        """(N,) robosuite's success predicate, now."""
        hand, pose = self.poses()
        return solved(self.config.task, pose[:, :3], hand[:, :3])

    def render(self, world: int, *, size: int = 256, camera: Camera = "agentview") -> NDArray[np.uint8]:
        """(size, size, 3) picture of one world."""
        if (camera, size) not in self._renderers:
            from ..render import Renderer

            self._renderers[camera, size] = Renderer(
                self.scene.model, size=size, camera=camera, hidden=(_COLLISION_SHAPES,)
            )
        return self._renderers[camera, size].frame(self.arms[world].data.qpos)

    def close(self) -> None:
        """Stop the threads and release the graphics contexts."""
        if self._pool is not None:
            self._pool.shutdown()
        self.scene.close()
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def poses(self) -> tuple[Array, Array]:
        """Position and quaternion, (N, 7) each, of the hand and of the object."""
        scene = self.scene
        tip = np.stack([arm.data.site_xpos[scene.site] for arm in self.arms])
        place = np.stack([arm.data.xpos[scene.body] for arm in self.arms])
        return (
            np.concatenate([tip, self._turn(scene.hand)], axis=1),
            np.concatenate([place, self._turn(scene.body)], axis=1),
        )

    def _observe(self) -> dict[str, Array]:
        hand, pose = self.poses()
        fingers = np.stack([arm.data.qpos[self.scene.fingers] for arm in self.arms])
        observation: dict[str, Array] = {
            "state": np.concatenate([hand, fingers], axis=1).astype(np.float32),
            "environment": describe_object(self.config.task, hand, pose).astype(np.float32),
        }
        for camera in self.config.cameras if self.config.images else ():
            observation[f"image.{camera}"] = np.stack(
                [
                    self.render(world, size=self.config.image_size, camera=camera)
                    for world in range(self.worlds)
                ]
            )
        return observation

    def _turn(self, body: int) -> Array:
        """(N, 4) a body's quaternion (x, y, z, w); MuJoCo writes w first."""
        return np.stack([arm.data.xquat[body][[1, 2, 3, 0]] for arm in self.arms])


def solved(task: TaskName, place: Array, tip: Array) -> NDArray[np.bool_]:
    """(N,) robosuite's success predicate.

    Args:
        task: which of the three.
        place: (N, 3) m, the object.
        tip: (N, 3) m, the point between the fingertips.
    """
    if task == "lift":
        return place[:, 2] > _TABLE + 0.04
    # robosuite asks for 1 - tanh(10 d) < 0.6
    released = np.tanh(10.0 * np.linalg.norm(tip - place, axis=1)) > 0.4
    if task == "can":
        inside = np.abs(place[:, :2] - BIN[:2]) < np.array([0.0975, 0.1225])
        return inside.all(axis=1) & (BIN[2] < place[:, 2]) & (place[:, 2] < BIN[2] + 0.1) & released
    on_peg = (np.abs(place[:, :2] - PEG) < 0.03).all(axis=1) & (place[:, 2] < _NUT_TABLE + 0.05)
    return on_peg & released


def _raise_if_any(bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        worlds = np.flatnonzero(bad).tolist()
        raise SimulationError(
            f"world {worlds[0]} has {what} ({len(worlds)} of {len(bad)} worlds: {worlds[:8]}); "
            "check the actions, then reset"
        )
