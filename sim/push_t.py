"""PushT in MuJoCo: push a T-shaped block onto a goal drawn at the centre of the table, or onto one of two.

Observation: `state`, the pusher's position (2), and `environment`, the block's eight corners (16). Action: the pusher's
target position (2). All in metres. The goal stands at 45 degrees in the centre and the T is symmetric about its stem,
so that exchanging x and y maps the task to itself. With two goals, left and right, an `instruction` names the one that
counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError
from ..data.spec import Field, Spec
from .batch import BatchedPhysics
from .push_t_geometry import GOAL, OUTLINE, TIP_RADIUS, WORKSPACE, coverage, distance_to_block, transform
from .push_t_goals import Goals, check_goals, choose_goals, goal_poses, instructions, load_model
from .task import Step

if TYPE_CHECKING:
    from .render import Renderer

Array = NDArray[Any]

CONTROL_HZ = 10.0
SUBSTEPS = 20
_MIDDLE = (
    0.15  # m; a block whose centre lies this near the middle along both axes can be reached from all sides
)


@dataclass(frozen=True, kw_only=True)
class PushTConfig:
    """The task.

    Attributes:
        max_steps: control steps (0.1 s) until a world is truncated.
        success_coverage: share of the goal the block must cover for success.
        finish_coverage: share at which an episode ends by itself; above `success_coverage`, so that an evaluation
            also sees how far a policy goes beyond success.
        start_range: m; the block starts with its centre uniform in a square of this half side, at any yaw.
        images: whether observations hold `image.top`, rendered at `image_size` (about 2 ms per world and step).
        image_size: px.
        threads: native threads; 0 takes one per usable core.
        goals: `centre`, or `two` goals of which each world's `instruction` names one, chosen by its seed.
    """

    max_steps: int = 300
    success_coverage: float = 0.90
    finish_coverage: float = 0.95
    start_range: float = 0.12
    images: bool = False
    image_size: int = 96
    threads: int = 0
    goals: Goals = "centre"

    def __post_init__(self) -> None:
        check_goals(self.goals)
        if self.max_steps < 1 or self.image_size < 8:
            raise ConfigError(
                f"max_steps must be at least 1 and image_size at least 8, got {self.max_steps}, {self.image_size}"
            )
        if not 0 < self.success_coverage <= self.finish_coverage <= 1:
            raise ConfigError(
                "coverages must satisfy 0 < success_coverage <= finish_coverage <= 1, "
                f"got {self.success_coverage} and {self.finish_coverage}"
            )
        if not 0 < self.start_range <= _MIDDLE:
            raise ConfigError(f"start_range must lie in (0, {_MIDDLE}] m, got {self.start_range}")
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 (one per core) or more, got {self.threads}")


def make_spec(config: PushTConfig) -> Spec:
    """The task's fields and rate."""
    observation = {
        "state": Field(shape=(2,), unit="m", names=("pusher_x", "pusher_y")),
        "environment": Field(
            shape=(16,), unit="m", names=tuple(f"corner_{i}_{axis}" for i in range(8) for axis in "xy")
        ),
    }
    if config.images:
        observation["image.top"] = Field(shape=(config.image_size, config.image_size, 3), dtype="uint8")
    if config.goals == "two":
        observation["instruction"] = Field(shape=(), dtype="str")
    return Spec(
        observation=observation,
        action=Field(
            shape=(2,),
            unit="m",
            low=(-WORKSPACE, -WORKSPACE),
            high=(WORKSPACE, WORKSPACE),
            names=("target_x", "target_y"),
        ),
        control_hz=CONTROL_HZ,
    )


def observe(qpos: Array) -> dict[str, Array]:
    """The numeric observation of positions (N, 5)."""
    corners = transform(qpos[:, :3], OUTLINE)
    return {
        "state": qpos[:, 3:].astype(np.float32),
        "environment": corners.reshape(len(qpos), 16).astype(np.float32),
    }


def start_positions(seeds: Sequence[int], config: PushTConfig) -> Array:
    """Positions (N, 5) of N starts, each from its own seed alone.

    Block and pusher are drawn uniformly, again and again until they are apart and no goal is nearly covered.
    """
    generators = [np.random.default_rng(int(seed)) for seed in seeds]
    reach = np.array([config.start_range, config.start_range, np.pi, *[0.9 * WORKSPACE] * 2])
    starts = np.empty((len(generators), 5))
    pending = np.arange(len(generators))
    while len(pending):
        starts[pending] = [generators[i].uniform(-1.0, 1.0, 5) for i in pending] * reach
        block, pusher = starts[pending, :3], starts[pending, 3:]
        covered = np.max([coverage(block, goal) for goal in goal_poses(config.goals)], axis=0)
        pending = pending[~(_apart(block, pusher) & (covered < 0.5 * config.success_coverage))]
    return starts


def is_free(block: Array, pusher: Array) -> NDArray[np.bool_]:
    """(N,) whether blocks at poses (N, 3) lie well inside the table and clear of pushers at (N, 2)."""
    return _apart(block, pusher) & (np.abs(block[:, :2]) <= _MIDDLE).all(axis=1)


def _apart(block: Array, pusher: Array) -> NDArray[np.bool_]:
    return distance_to_block(block, pusher) > TIP_RADIUS + 0.01


def judge(qpos: Array, config: PushTConfig, goal: Array = GOAL) -> tuple[Array, Array]:
    """Coverage (N,) and reward (N,), coverage / success_coverage clipped to 1, of positions (N, 5) by a goal's pose."""
    covered = coverage(qpos[:, :3], goal)
    return covered, np.minimum(covered / config.success_coverage, 1.0)


class PushTWorlds:
    """N worlds stepped together; satisfies `Task`.

    Targets outside the workspace are clamped to its edge by the actuators.

    Attributes:
        chosen: (N,) number of the goal that counts in each world.
    """

    def __init__(self, config: PushTConfig | None = None, *, worlds: int = 1) -> None:
        """Build the worlds; the first call must be `reset`."""
        self.config = config or PushTConfig()
        self.spec = make_spec(self.config)
        self.max_steps = self.config.max_steps
        self.model = load_model(self.config.goals)
        self.chosen = np.zeros(worlds, dtype=np.int64)
        self.physics = BatchedPhysics(
            self.model, worlds=worlds, substeps=SUBSTEPS, threads=self.config.threads
        )
        self._elapsed = 0
        self._renderers: dict[int, Renderer] = {}

    @property
    def worlds(self) -> int:
        """N."""
        return self.physics.worlds

    @property
    def goals(self) -> NDArray[np.float64]:
        """(N, 3) pose of the goal that counts in each world."""
        return goal_poses(self.config.goals)[self.chosen]

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Start every world anew, world i from seeds[i] alone."""
        if len(seeds) != self.worlds:
            raise ConfigError(f"reset needs {self.worlds} seeds, one per world, got {len(seeds)}")
        self.chosen = choose_goals(seeds, self.config.goals)
        return self.restore(start_positions(seeds, self.config))

    def restore(self, qpos: Array, qvel: Array | float = 0.0) -> dict[str, Array]:
        """Place every world at positions (N, 5) and velocities (N, 5); what counts as its goal stays."""
        self.physics.place(qpos, qvel)
        self._elapsed = 0
        return self._observe()

    def step(self, action: Array) -> Step:
        """Move every pusher towards its target (N, 2) for 0.1 s.

        Raises:
            SimulationError: naming the world whose action or state is not finite.
        """
        action = np.asarray(action)
        if action.shape != (self.worlds, 2):
            raise ConfigError(f"actions must be shaped ({self.worlds}, 2), got {action.shape}")
        self.physics.advance(action)
        self._elapsed += 1
        covered, reward = judge(self.physics.qpos, self.config, self.goals)
        terminated = covered >= self.config.finish_coverage
        return Step(
            observation=self._observe(),
            reward=reward,
            terminated=terminated,
            truncated=~terminated if self._elapsed >= self.max_steps else np.zeros_like(terminated),
            success=covered >= self.config.success_coverage,
            score=covered,
        )

    def displace(self, worlds: Array, offset: Array) -> dict[str, Array]:
        """Move blocks by hand: shifted and at rest, while pushers and clocks go on; the observation after it.

        Args:
            worlds: (n,) indices.
            offset: (n, 2) metres.

        Raises:
            ConfigError: naming the first world whose block would lie beyond the table or on the pusher.
        """
        block = self.physics.qpos[worlds, :3] + np.pad(offset, ((0, 0), (0, 1)))
        free = is_free(block, self.physics.qpos[worlds, 3:])
        if not free.all():
            bad = int(np.flatnonzero(~free)[0])
            raise ConfigError(
                f"the block of world {worlds[bad]} cannot be moved by {offset[bad].tolist()} m: it would lie on the "
                f"pusher or further than {_MIDDLE} m from the middle; choose another offset"
            )
        self.physics.qpos[worlds, :3] = block
        self.physics.qvel[worlds, :3] = 0.0
        return self._observe()

    def render(self, world: int, *, size: int = 256) -> NDArray[np.uint8]:
        """(size, size, 3) picture of one world from above."""
        if size not in self._renderers:
            from .render import Renderer

            self._renderers[size] = Renderer(self.model, size=size)
        return self._renderers[size].frame(self.physics.qpos[world])

    def close(self) -> None:
        """Stop the threads and release the graphics contexts."""
        self.physics.close()
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _observe(self) -> dict[str, Array]:
        observation = observe(self.physics.qpos)
        if self.config.images:
            frames = [self.render(world, size=self.config.image_size) for world in range(self.worlds)]
            observation["image.top"] = np.stack(frames)
        if self.config.goals == "two":
            observation["instruction"] = instructions(self.chosen)
        return observation
