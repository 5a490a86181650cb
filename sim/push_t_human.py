"""PushT as published with Diffusion Policy: gym-pusht's 2-D physics and 206 human demonstrations.

The benchmark works in pixels of a 512 x 512 workspace, and so does this task's spec: the numbers can then be compared
with the published ones. Observation: `state`, the agent's position (2), and `environment`, nine points fixed to the
block (18), the 20 numbers of Diffusion Policy's low-dimensional PushT (arXiv 2303.04137).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.episodes import Episodes, concatenate
from ..data.errors import ConfigError, DataError
from ..data.formats import load_dataset
from ..data.spec import Field, Spec
from .task import Step

Array = NDArray[Any]

WORKSPACE = 512.0  # px
SUCCESS_COVERAGE = 0.95

# The nine points in the block's own frame, px. Fitted to the recordings: recorded point = R(angle) @ p + position,
# with a spread under 0.03 px over all 25,650 steps.
KEYPOINTS = np.array(
    [
        [9.270, 90.041],
        [-60.983, -1.187],
        [60.913, -1.393],
        [-0.270, 25.544],
        [-14.065, 122.816],
        [39.003, 32.858],
        [-39.966, 32.730],
        [-16.824, 62.863],
        [23.542, -1.700],
    ]
)

_BOUNDS = ((0.0,), (WORKSPACE,))
SPEC = Spec(
    observation={
        "state": Field(shape=(2,), unit="px", names=("agent_x", "agent_y")),
        "environment": Field(
            shape=(18,), unit="px", names=tuple(f"keypoint_{i}_{axis}" for i in range(9) for axis in "xy")
        ),
    },
    action=Field(
        shape=(2,),
        unit="px",
        low=_BOUNDS[0] * 2,
        high=_BOUNDS[1] * 2,
        names=("target_x", "target_y"),
    ),
    control_hz=10.0,
)


def keypoints(pose: Array) -> Array:
    """The nine block points in the world.

    Args:
        pose: (..., 3) block x, y in px and angle in rad.

    Returns:
        (..., 18) px, x and y of each point in turn.
    """
    cos, sin = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
    x = cos * KEYPOINTS[:, 0] - sin * KEYPOINTS[:, 1] + pose[..., 0, None]
    y = sin * KEYPOINTS[:, 0] + cos * KEYPOINTS[:, 1] + pose[..., 1, None]
    return np.stack([x, y], axis=-1).reshape(*pose.shape[:-1], 18)


def observe(state: Array) -> dict[str, Array]:
    """The 20-number observation of raw states (..., 5) [agent x, y, block x, y, angle]."""
    return {
        "state": state[..., :2].astype(np.float32),
        "environment": keypoints(state[..., 2:].astype(np.float64)).astype(np.float32),
    }


def read_demonstrations(path: Path | str, *, mirror: bool = False) -> Episodes:
    """The training set from a file of PushT recordings: `pusht_lowdim.npz` or Diffusion Policy's Zarr store."""
    return demonstrations(load_dataset(path, control_hz=SPEC.control_hz), mirror=mirror)


def demonstrations(raw: Episodes, *, mirror: bool = False) -> Episodes:
    """The training set from recordings that hold `state` (5) per step.

    Args:
        raw: as read from `pusht_lowdim.npz` or Diffusion Policy's Zarr store.
        mirror: add the mirrored copy of every episode, see `mirrored`.
    """
    state = raw.observation.get("state")
    if state is None or state.shape[1:] != (5,) or raw.action.shape[1:] != (2,):
        raise DataError(
            "PushT recordings need `state` (5) [agent x, y, block x, y, angle] and a 2-D action, got "
            f"{ {k: v.shape[1:] for k, v in raw.observation.items()} } and action {raw.action.shape[1:]}"
        )
    sides = [(state, raw.action)]
    if mirror:
        sides.append((mirrored(state), raw.action[:, ::-1] * -1 + np.float32(WORKSPACE)))
    parts = [
        Episodes(
            spec=SPEC,
            observation=observe(s),
            action=np.ascontiguousarray(a, dtype=np.float32),
            ends=raw.ends,
            metadata=raw.metadata,
        )
        for s, a in sides
    ]
    return concatenate(parts)


def mirrored(state: Array) -> Array:
    """The same state reflected about the workspace's anti-diagonal, (x, y) -> (512 - y, 512 - x).

    The T is symmetric about its stem and the goal stands at 45 degrees in the centre, so the reflection maps the task
    to itself: replayed mirrored actions give the mirrored trajectory, with the same coverage.
    """
    out = np.empty_like(state)
    out[..., 0], out[..., 1] = WORKSPACE - state[..., 1], WORKSPACE - state[..., 0]
    out[..., 2], out[..., 3] = WORKSPACE - state[..., 3], WORKSPACE - state[..., 2]
    out[..., 4] = (np.pi / 2 - state[..., 4]) % (2 * np.pi)
    return out


@dataclass(frozen=True, kw_only=True)
class PushTHumanConfig:
    """The published benchmark; `max_steps` 300 is the published episode length."""

    max_steps: int = 300

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps must be at least 1, got {self.max_steps}")


class PushTHuman:
    """N gym-pusht worlds stepped together; satisfies `Task`.

    `Step.reward` is coverage / 0.95 clipped to 1, whose maximum over an episode is the published score;
    `Step.score` is the coverage itself.
    """

    spec = SPEC

    def __init__(self, config: PushTHumanConfig | None = None, *, worlds: int = 1) -> None:
        """Build the worlds; needs the extra `pusht`."""
        self.config = config or PushTHumanConfig()
        self.worlds = worlds
        self.max_steps = self.config.max_steps
        self._envs = [_make_env() for _ in range(worlds)]
        self._elapsed = 0
        self._coverage = np.zeros(worlds)

    def reset(self, seeds: Sequence[int]) -> dict[str, Array]:
        """Start every world from the benchmark's own distribution; world i uses seeds[i]."""
        if len(seeds) != self.worlds:
            raise ConfigError(f"reset needs {self.worlds} seeds, one per world, got {len(seeds)}")
        for env, seed in zip(self._envs, seeds, strict=True):
            env.reset(seed=int(seed))
        self._begin()
        return observe(self.state)

    def restore(self, state: Array) -> dict[str, Array]:
        """Place every world at a recorded state (N, 5).

        The angle is set before the position: a pymunk body turns about its centre of mass, so setting the angle last
        would move the block by about 50 px. gym-pusht's own `reset_to_state` does that, and steps once more.
        """
        for env, s in zip(self._envs, np.asarray(state, dtype=np.float64), strict=True):
            env.reset(seed=0)
            env.agent.position, env.agent.velocity = (s[0], s[1]), (0.0, 0.0)
            env.block.velocity, env.block.angular_velocity = (0.0, 0.0), 0.0
            env.block.angle = s[4]
            env.block.position = (s[2], s[3])
        self._begin()
        return observe(self.state)

    def _begin(self) -> None:
        self._elapsed = 0
        self._coverage = np.array([env._get_coverage() for env in self._envs])

    @property
    def state(self) -> Array:
        """(N, 5) raw states: agent x, y, block x, y in px, block angle in rad."""
        return np.array([[*e.agent.position, *e.block.position, e.block.angle] for e in self._envs])

    def step(self, action: Array) -> Step:
        """Move every agent towards its target (N, 2) px for one control step."""
        targets = np.clip(np.asarray(action, dtype=np.float64), 0.0, WORKSPACE)
        for i, (env, target) in enumerate(zip(self._envs, targets, strict=True)):
            self._coverage[i] = env.step(target)[4]["coverage"]
        self._elapsed += 1
        success = self._coverage > SUCCESS_COVERAGE
        return Step(
            observation=observe(self.state),
            reward=np.clip(self._coverage / SUCCESS_COVERAGE, 0.0, 1.0),
            terminated=success,
            truncated=np.full(self.worlds, self._elapsed >= self.max_steps) & ~success,
            success=success,
            score=self._coverage.copy(),
        )

    def render(self, world: int, *, size: int = 256) -> NDArray[np.uint8]:
        """(size, size, 3) picture of one world, with the last target marked."""
        env = self._envs[world]
        env.visualization_width = env.visualization_height = size
        return np.asarray(env.render(), dtype=np.uint8)

    def close(self) -> None:
        """Release the worlds."""
        for env in self._envs:
            env.close()


def _make_env() -> Any:
    try:
        from gym_pusht.envs.pusht import PushTEnv
    except ImportError as error:
        raise ConfigError(
            f"push_t_human needs gym-pusht ({error}); install it with: pip install 'sensorimotor[pusht]'"
        ) from error
    return PushTEnv(obs_type="state", render_mode="rgb_array")
