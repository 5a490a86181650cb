"""One PushT world behind Gymnasium's API, stepped by `mj_step`: the single twin of `PushTWorlds`, equal bit for bit.

Importing this module registers it: `gymnasium.make("sensorimotor.sim.push_t_env:sensorimotor/PushT-v0")`.
"""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from ..data.spec import Field
from .batch import advance_one
from .push_t import CONTROL_HZ, SUBSTEPS, PushTConfig, judge, load_model, make_spec, observe, start_positions
from .push_t_goals import INSTRUCTIONS, choose_goals, goal_poses, instructions

if TYPE_CHECKING:
    from .render import Renderer

Observation = dict[str, Any]


class PushT(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Push the T onto the goal; see `PushTConfig` for what ends an episode.

    `info` holds `success` (bool) and `coverage` (0..1). The start follows from the seed given to `reset` alone, as in
    `PushTWorlds`; without one, from the environment's own generator.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    def __init__(
        self, config: PushTConfig | None = None, *, render_mode: str | None = None, size: int = 256
    ) -> None:
        """Build the world; `render()` gives frames of `size` px where `render_mode` is rgb_array."""
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode must be None or rgb_array, got {render_mode!r}")
        self.config = config or PushTConfig()
        self.render_mode = render_mode
        self.spec_fields = make_spec(self.config)
        self.observation_space = gymnasium.spaces.Dict(
            {key: _space(field) for key, field in self.spec_fields.observation.items()}
        )
        self.action_space = _box(self.spec_fields.action)
        self.model = load_model(self.config.goals)
        self._chosen = np.zeros(1, dtype=np.int64)
        self.data = mujoco.MjData(self.model)
        self._size = size
        self._elapsed = 0
        self._renderers: dict[int, Renderer] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start anew; no options are known."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(2**31)) if seed is None else seed
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = start_positions([start], self.config)[0]
        self._chosen = choose_goals([start], self.config.goals)
        self._elapsed = 0
        covered, _ = judge(self.data.qpos[None], self.config, self._goal)
        return self._observe(), self._info(covered)

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the pusher towards its target (2,) for 0.1 s."""
        advance_one(self.model, self.data, np.asarray(action, dtype=np.float64), substeps=SUBSTEPS)
        self._elapsed += 1
        covered, reward = judge(self.data.qpos[None], self.config, self._goal)
        terminated = bool(covered[0] >= self.config.finish_coverage)
        truncated = self._elapsed >= self.config.max_steps and not terminated
        return self._observe(), float(reward[0]), terminated, truncated, self._info(covered)

    def render(self) -> NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(size, size, 3), or None without a render mode."""
        return self._frame(self._size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the graphics contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    @property
    def _goal(self) -> NDArray[np.float64]:
        return goal_poses(self.config.goals)[self._chosen]

    def _info(self, covered: NDArray[Any]) -> dict[str, Any]:
        return {
            "success": bool(covered[0] >= self.config.success_coverage),
            "coverage": float(covered[0]),
        }

    def _observe(self) -> Observation:
        observation = {key: value[0] for key, value in observe(self.data.qpos[None]).items()}
        if self.config.images:
            observation["image.top"] = self._frame(self.config.image_size)
        if self.config.goals == "two":
            observation["instruction"] = str(instructions(self._chosen)[0])
        return observation

    def _frame(self, size: int) -> NDArray[np.uint8]:
        if size not in self._renderers:
            from .render import Renderer

            self._renderers[size] = Renderer(self.model, size=size)
        return self._renderers[size].frame(self.data.qpos)


def _space(field: Field) -> gymnasium.Space[Any]:
    if field.dtype == "str":
        letters = "".join(sorted(set("".join(INSTRUCTIONS))))
        return gymnasium.spaces.Text(max(map(len, INSTRUCTIONS)), charset=letters)
    return _box(field)


def _box(field: Field) -> gymnasium.spaces.Box:
    if field.dtype == "uint8":
        return gymnasium.spaces.Box(0, 255, field.shape, np.uint8)
    low = np.full(field.shape, -np.inf) if field.low is None else np.array(field.low)
    high = np.full(field.shape, np.inf) if field.high is None else np.array(field.high)
    return gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


if "sensorimotor/PushT-v0" not in gymnasium.registry:
    gymnasium.register("sensorimotor/PushT-v0", entry_point=f"{__name__}:PushT")
