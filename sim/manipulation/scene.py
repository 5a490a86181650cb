"""A robosuite scene: the compiled model, its named parts and its starts.

robosuite composes the model and draws the starts; what happens from there on is stepped by `arm.py`, without it.
"""

# robosuite and MuJoCo's compiled modules bring no stubs.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import logging
import re
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from ...data.errors import ConfigError

Array = NDArray[np.float64]
TaskName = Literal["lift", "can", "square"]

CONTROL_HZ = 20.0
REACH, TURN = 0.05, 0.5  # m and rad that an action of 1 asks for
_LOGGER = "robosuite_logs"
_MEMORY = "32M"  # of which the three tasks use less than one
_PICTURE = 1024  # px; robosuite's models allow 640, of which a renderer that averages 2 x 2 has half


@dataclass(frozen=True)
class Kind:
    """What sets a task apart.

    Attributes:
        environment: robosuite's name.
        body: the object to be moved.
        relative_first: whether `object` begins with the object's pose seen from the gripper.
    """

    environment: str
    body: str
    relative_first: bool


KINDS: dict[TaskName, Kind] = {
    "lift": Kind("Lift", "cube_main", relative_first=False),
    "can": Kind("PickPlaceCan", "Can_main", relative_first=True),
    "square": Kind("NutAssemblySquare", "SquareNut_main", relative_first=True),
}


class Scene:
    """One task's model, and robosuite's environment to draw starts with.

    Attributes:
        kind: what sets the task apart.
        model: shared by all worlds. The cube of `lift` has one size, which robosuite draws anew for each model.
        site: the point between the fingertips that the controller moves.
        hand: the body whose orientation is observed.
        body: the object's body.
        fingers: (2,) positions of the finger joints.
    """

    def __init__(self, task: TaskName) -> None:
        """Compile the model; takes seconds.

        Raises:
            ConfigError: if robosuite cannot be imported or refuses the installed MuJoCo.
        """
        self.kind = KINDS[task]
        self._env, self._controller = _make(self.kind.environment)
        self.model: mujoco.MjModel = self._env.sim.model._model
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = _PICTURE
        robot = self._env.robots[0]
        self.site = int(robot.eef_site_id["right"])
        self.hand = self.model.body(robot.robot_model.eef_name["right"]).id
        self.body = self.model.body(self.kind.body).id
        self.fingers = np.array(robot._ref_gripper_joint_pos_indexes["right"])

    def start(self, seed: int) -> tuple[Array, Array]:
        """Positions and velocities of robosuite's start, drawn from the seed alone."""
        # Everything random in the environment shares this generator.
        self._env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        with quiet():
            self._env.reset()
        data = self._env.sim.data
        return np.array(data.qpos), np.array(data.qvel)

    def description(self) -> dict[str, Any]:
        """What robomimic writes about an environment, enough to build it again."""
        return {
            "env_name": self.kind.environment,
            "env_version": _version(),
            "type": 1,  # robomimic's number for robosuite
            "env_kwargs": {
                "robots": ["Panda"],
                "controller_configs": self._controller,
                "control_freq": int(CONTROL_HZ),
                "has_renderer": False,
                "has_offscreen_renderer": False,
                "use_camera_obs": False,
                "use_object_obs": True,
                "reward_shaping": False,
                "ignore_done": True,
            },
        }

    def model_file(self) -> str:
        """The model as XML, its assets named from robosuite's folder on, which robosuite puts in place again."""
        return re.sub(r'file="[^"]*/(robosuite/[^"]*)"', r'file="\1"', self._env.sim.model.get_xml())

    def close(self) -> None:
        """Release robosuite's environment."""
        self._env.close()


class quiet:  # noqa: N801 - read as a phrase: `with quiet():`
    """robosuite warns of every optional part it lacks, at import and at each reset; errors are still logged."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger(_LOGGER)
        self._logger.disabled = False
        self._logger.addFilter(_is_error)

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _version() -> str:
    import robosuite

    return str(robosuite.__version__)


def _make(name: str) -> tuple[Any, dict[str, Any]]:
    """Robosuite's environment and the controller configuration it was built with."""
    if tuple(int(word) for word in mujoco.__version__.split(".")[:2]) >= (3, 8):
        raise ConfigError(
            f"robosuite 1.5 does not run on MuJoCo {mujoco.__version__}; install a version below 3.8: "
            "pip install 'mujoco>=3.3.3,<3.8'"
        )
    try:
        with quiet():
            import robosuite
            from robosuite.controllers import load_composite_controller_config
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"lift, can and square need robosuite ({error}); install it with: pip install 'sensorimotor[robomimic]', "
            "or beside NumPy 2: pip install --no-deps robosuite==1.5.2 and pip install numba scipy"
        ) from error
    with quiet():
        controller: Any = load_composite_controller_config(controller="BASIC", robot="Panda")
        controller["body_parts"] = {"right": controller["body_parts"]["right"]}  # the Panda has no other part
        env: Any = robosuite.make(
            name,
            robots="Panda",
            controller_configs=controller,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=CONTROL_HZ,
            ignore_done=True,
            hard_reset=False,
            renderer="mujoco",
            seed=0,
        )
        env.set_xml_processor(_small)
        env.hard_reset = True  # builds the model again, this time through the processor
        env.reset()
        env.hard_reset = False
    return env, controller


def _small(xml: str) -> str:
    """The model with room for its contacts in megabytes; robosuite's asks for 1.3 gigabytes in every world."""
    return re.sub(r"<size\b[^>]*/>", f'<size memory="{_MEMORY}"/>', xml, count=1)
