"""Record an expert as a training set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.episodes import Episodes
from ..data.errors import ConfigError, DataError
from .demonstrator import Demonstrator, DemonstratorConfig, make_demonstrator
from .manipulation.recordings import as_robomimic
from .manipulation.task import RobosuiteWorlds
from .task import Task
from .tasks import TaskConfig

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
    observation: list[dict[str, NDArray[Any]]]
    action: list[NDArray[Any]]
    reward: list[float]
    state: list[NDArray[np.float64]]
    finished: bool = False


def record_demos(
    task: TaskConfig,
    expert: DemonstratorConfig,
    *,
    episodes: int,
    first_seed: int = 0,
    keep_failures: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Record demonstrations from consecutive starts until there are enough.

    An episode is a success when the task ends it, for `push_t` when the block reaches `finish_coverage`. Starts below
    100000 are for demonstrations, so that none is ever evaluated on.

    Args:
        task: the world, starts and lengths.
        expert: who demonstrates.
        episodes: how many to keep.
        first_seed: the first start.
        keep_failures: also keep episodes that ran out of time.
        progress: called with (kept, wanted).

    Raises:
        ConfigError: for impossible arguments, or an expert of another task.
        DataError: when more than half of twenty or more starts fail.
    """
    if episodes < 1 or first_seed < 0 or first_seed + episodes > _FIRST_EVALUATED:
        raise ConfigError(
            f"record at least 1 episode from starts within 0..99999, got {episodes} from {first_seed}; "
            "100000 and up are for evaluation"
        )
    world, demonstrator = make_demonstrator(task, expert)
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
            track = _record(world, demonstrator, seed)
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
                    f"the expert solved only {tried - len(failed)} of {tried} starts; give it more steps, or, for "
                    "push_t, more candidates or starts nearer to the goal"
                )
        recorded = _assemble(world, tracks, seeds)
    finally:
        demonstrator.close()
        world.close()
    return Recording(recorded, tuple(seeds), tuple(failed))


def _record(world: Task, demonstrator: Demonstrator, seed: int) -> _Track:
    observation = world.reset([seed])
    demonstrator.reset(np.random.default_rng([seed, 1]))
    track = _Track([], [], [], [])
    held = 0
    for _ in range(world.max_steps):
        if isinstance(world, RobosuiteWorlds):
            track.state.append(world.state[0])
        action = demonstrator.act()
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


def _assemble(world: Task, tracks: list[_Track], seeds: list[int]) -> Episodes:
    rows = [row for track in tracks for row in track.observation]
    ends = np.cumsum([len(track.action) for track in tracks]).astype(np.int64)
    terminated = np.zeros(ends[-1], dtype=bool)
    success = np.array([track.finished for track in tracks])
    terminated[ends[success] - 1] = True
    episodes = Episodes(
        spec=world.spec,
        observation={key: np.stack([row[key] for row in rows]) for key in world.spec.observation},
        action=np.concatenate([np.array(track.action) for track in tracks]).astype(np.float32),
        ends=ends,
        reward=np.concatenate([np.array(track.reward) for track in tracks]).astype(np.float32),
        terminated=terminated,
        success=success,
        metadata={"task": "push_t", "source": "model-predictive control expert", "seeds": seeds},
    )
    if not isinstance(world, RobosuiteWorlds):
        return episodes
    states = np.concatenate([np.array(track.state) for track in tracks])
    return as_robomimic(episodes, world, states, seeds)
