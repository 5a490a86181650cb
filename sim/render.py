"""Cheap pictures of a MuJoCo world, seen by a camera of its model.

Without a GPU, MuJoCo's default rendering costs tens of milliseconds a frame, nearly all of it in shadow maps,
reflections and multisampling. With these off, drawing at twice the size and averaging 2 x 2 pixels smooths edges for a
fraction of that.
"""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

import atexit
import importlib
import os
import sys
import weakref
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError

_LINUX = ("egl", "osmesa")  # neither needs a display


class Renderer:
    """Draws worlds of one model; owns a graphics context, which belongs to the thread that made it."""

    def __init__(
        self, model: mujoco.MjModel, *, size: int, camera: str = "top", hidden: tuple[int, ...] = ()
    ) -> None:
        """Make a context for square frames of `size` px.

        Args:
            model: of the worlds to draw.
            size: px.
            camera: its name in the model.
            hidden: groups of geoms that are not drawn.

        Raises:
            ConfigError: for a size or camera the model does not offer, or if no graphics library works.
        """
        largest = min(model.vis.global_.offwidth, model.vis.global_.offheight) // 2
        if not 8 <= size <= largest:
            raise ConfigError(f"frames can be 8 to {largest} px wide, got {size}")
        camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if camera_id < 0:
            names = [model.camera(i).name for i in range(model.ncam)]
            raise ConfigError(f"unknown camera {camera!r}; the model has {names}")
        self._model, self._data = model, mujoco.MjData(model)
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera_id
        self._option = mujoco.MjvOption()
        self._option.geomgroup[list(hidden)] = 0
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 16)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._rect = mujoco.MjrRect(0, 0, 2 * size, 2 * size)
        self._pixels = np.empty((2 * size, 2 * size, 3), dtype=np.uint8)
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        self._gl = make_context(2 * size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._release = weakref.finalize(self, _release, self._gl, self._context)
        atexit.register(
            self._release
        )  # before MuJoCo's own hook ends the display; a second call does nothing

    def frame(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(size, size, 3) picture of the world at these positions (nq,)."""
        if not self._release.alive:
            raise ConfigError("this renderer is closed; make a new one")
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, everything, self._scene
        )
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return _halved(self._pixels[::-1])  # OpenGL counts rows from the bottom

    def close(self) -> None:
        """Release the graphics context; closing twice is fine."""
        self._release()


def _release(gl: Any, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of every 2 x 2 pixels, rounded."""
    rows = pixels[0::2].astype(np.uint16) + pixels[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def make_context(size: int) -> Any:
    """An offscreen OpenGL context from the library MUJOCO_GL names, or from the first one that works.

    Raises:
        ConfigError: saying what was tried and how each attempt failed.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    native = {"darwin": ("cgl",), "win32": ("glfw",)}.get(sys.platform, _LINUX)
    failures = []
    for name in (asked,) if asked else native:
        try:
            return importlib.import_module(f"mujoco.{name}").GLContext(size, size)
        except (ImportError, AttributeError, RuntimeError, OSError) as error:
            # A binding that cannot load its library leaves its choice behind, and the next one would refuse to start.
            if not asked:
                os.environ.pop("PYOPENGL_PLATFORM", None)
            failures.append(f"{name}: {error}")
    raise ConfigError(
        f"cannot render, no graphics library works ({'; '.join(failures)}); on Debian or Ubuntu install libegl1 and "
        "libgl1-mesa-dri, or libosmesa6 with MUJOCO_GL=osmesa"
    )
