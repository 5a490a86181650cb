"""Record the expert on `push_t` as a training set."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.episodes import Episodes
from ..data.errors import ConfigError, DataError
from .expert import Expert, ExpertConfig
from .push_t import PushTConfig, PushTWorlds

DEMONSTRATIONS = Path(__file__).parent / "assets" / "push_t_demos.hdf5"  # what comes with the package
_FIRST_EVALUATED = 100_000
_HOLD = 4  # control steps recorded after the task is finished, so that a policy learns to stay


@dataclass(frozen=True)
class Recording:
    """What was recorded.

    Attributes:
        episodes: the demonstrations, `success` among them.
        seeds: the start of each kept episode.
        failed: seeds of the starts the expert did not solve.
    """

    episodes: Episodes
    seeds: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass
class _Track:
    observation: list[dict[str, NDArray[np.float32]]]
    action: list[NDArray[np.float64]]
    reward: list[float]
    finished: bool = False


def record_demos(
    task: PushTConfig,
    expert: ExpertConfig,
    *,
    episodes: int,
    first_seed: int = 0,
    keep_failures: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Record demonstrations from consecutive starts until there are enough.

    An episode is a success when the block reaches the task's `finish_coverage`. Starts below 100000 are for
    demonstrations, so that none is ever evaluated on.

    Args:
        task: the world, starts and lengths.
        expert: the planner.
        episodes: how many to keep.
        first_seed: the first start.
        keep_failures: also keep episodes that ran out of time.
        progress: called with (kept, wanted).

    Raises:
        ConfigError: for impossible arguments.
        DataError: when more than half of twenty or more starts fail.
    """
    if episodes < 1 or first_seed < 0 or first_seed + episodes > _FIRST_EVALUATED:
        raise ConfigError(
            f"record at least 1 episode from starts within 0..99999, got {episodes} from {first_seed}; "
            "100000 and up are for evaluation"
        )
    world, planner = PushTWorlds(task, worlds=1), Expert(expert)
    tracks: list[_Track] = []
    seeds, failed = [], []
    seed = first_seed
    try:
        while len(tracks) < episodes:
            if seed >= _FIRST_EVALUATED:
                raise DataError(
                    f"starts {first_seed} to {seed - 1} gave only {len(tracks)} of {episodes} episodes, and those "
                    f"from {_FIRST_EVALUATED} on are for evaluation; begin earlier than {first_seed}"
                )
            track = _record(world, planner, seed)
            if not track.finished:
                failed.append(seed)
            if track.finished or keep_failures:
                tracks.append(track)
                seeds.append(seed)
                if progress:
                    progress(len(tracks), episodes)
            seed += 1
            tried = seed - first_seed
            if tried >= 20 and len(failed) > tried / 2:
                raise DataError(
                    f"the expert solved only {tried - len(failed)} of {tried} starts; "
                    "give it more candidates or steps, or start nearer to the goal"
                )
    finally:
        world.close()
        planner.close()
    return Recording(_assemble(world, tracks, seeds), tuple(seeds), tuple(failed))


def _record(world: PushTWorlds, planner: Expert, seed: int) -> _Track:
    observation = world.reset([seed])
    planner.reset(world.physics.qpos[0].copy(), np.random.default_rng([seed, 1]))
    track = _Track([], [], [])
    held = 0
    for _ in range(world.max_steps):
        action = planner.act(world.physics.qpos[0].copy(), world.physics.qvel[0].copy())
        step = world.step(action[None])
        track.observation.append({key: value[0] for key, value in observation.items()})
        track.action.append(action)
        track.reward.append(float(step.reward[0]))
        observation = step.observation
        track.finished |= bool(step.terminated[0])
        held += track.finished
        if held > _HOLD:
            break
    return track


def _assemble(world: PushTWorlds, tracks: list[_Track], seeds: list[int]) -> Episodes:
    rows = [row for track in tracks for row in track.observation]
    ends = np.cumsum([len(track.action) for track in tracks]).astype(np.int64)
    terminated = np.zeros(ends[-1], dtype=bool)
    success = np.array([track.finished for track in tracks])
    terminated[ends[success] - 1] = True
    return Episodes(
        spec=world.spec,
        observation={key: np.stack([row[key] for row in rows]) for key in world.spec.observation},
        action=np.concatenate([np.array(track.action) for track in tracks]).astype(np.float32),
        ends=ends,
        reward=np.concatenate([np.array(track.reward) for track in tracks]).astype(np.float32),
        terminated=terminated,
        success=success,
        metadata={"task": "push_t", "source": "model-predictive control expert", "seeds": seeds},
    )


def mirrored(episodes: Episodes) -> Episodes:
    """The same `push_t` episodes with x and y exchanged, which maps the task to itself.

    The block's corners are listed so that a mirrored block's corners come in the reverse order.
    """
    if set(episodes.observation) != {"state", "environment"}:
        raise DataError(
            "only the numeric observations `state` and `environment` can be mirrored, "
            f"got {sorted(episodes.observation)}"
        )
    corners = episodes.observation["environment"].reshape(episodes.steps, -1, 2)
    return replace(
        episodes,
        observation={
            "state": np.ascontiguousarray(episodes.observation["state"][:, ::-1]),
            "environment": np.ascontiguousarray(corners[:, ::-1, ::-1]).reshape(episodes.steps, -1),
        },
        action=np.ascontiguousarray(episodes.action[:, ::-1]),
    )
