"""Recorded episodes as contiguous arrays: all steps end to end, and where each episode stops.

In memory or memory-mapped: `save_episodes` writes a folder of plain `.npy` files, `open_episodes` maps it. Camera frames
may also stay in the file they came from, as a `lazy.LazyArray`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, SensorimotorError
from .files import atomic_folder, check_replaceable, recover_folder
from .lazy import join, save_array, take
from .spec import Spec

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """M episodes, N steps in all.

    Attributes:
        spec: fields and rate; window lengths are left at 1.
        observation: key -> (N, *shape) array.
        action: (N, A).
        ends: (M,) int64, the exclusive end of each episode; increasing, the last one is N.
        reward: (N,) or None.
        terminated: (N,) bool, True where the episode ended in a terminal state, or None.
        success: (M,) bool or None.
        extra: other arrays of length N that a format carried, kept for exact round trips.
        metadata: plain JSON values about the whole set (source, environment arguments, ...).
    """

    spec: Spec
    observation: Mapping[str, Array]
    action: Array
    ends: NDArray[np.int64]
    reward: Array | None = None
    terminated: NDArray[np.bool_] | None = None
    success: NDArray[np.bool_] | None = None
    extra: Mapping[str, Array] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = self.ends
        if ends.ndim != 1 or len(ends) == 0 or ends[0] < 1 or (np.diff(ends) < 1).any():
            raise DataError(f"episode ends must be increasing and start above 0, got {ends[:8]}...")
        steps = int(ends[-1])
        for name, array in self._per_step():
            if len(array) != steps:
                raise DataError(f"{name} has {len(array)} steps, the episode ends say {steps}")
        if set(self.observation) != set(self.spec.observation):
            raise DataError(
                f"observation keys {sorted(self.observation)} differ from the spec's {sorted(self.spec.observation)}"
            )
        for key, described in (*self.spec.observation.items(), ("action", self.spec.action)):
            array = self.action if key == "action" else self.observation[key]
            same = array.dtype.kind == "U" if described.is_text else array.dtype == np.dtype(described.dtype)
            if array.shape[1:] != described.shape or not same:
                raise DataError(
                    f"{key} is {array.dtype}{list(array.shape[1:])} per step, "
                    f"the spec says {described.dtype}{list(described.shape)}"
                )
        if self.success is not None and len(self.success) != len(ends):
            raise DataError(f"success has {len(self.success)} entries for {len(ends)} episodes")

    def _per_step(self) -> Iterator[tuple[str, Array]]:
        yield "action", self.action
        yield from self.observation.items()
        yield from self.extra.items()
        if self.reward is not None:
            yield "reward", self.reward
        if self.terminated is not None:
            yield "terminated", self.terminated

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.ends)

    @property
    def steps(self) -> int:
        """Number of steps in all episodes together."""
        return int(self.ends[-1])

    @property
    def starts(self) -> NDArray[np.int64]:
        """(M,) first step of each episode."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(M,) steps per episode."""
        return self.ends - self.starts

    def select(self, episodes: Sequence[int] | NDArray[np.int64]) -> Self:
        """A copy with only these episodes, in this order."""
        wanted = np.asarray(episodes, dtype=np.int64)
        if len(wanted) == 0 or wanted.min() < 0 or wanted.max() >= len(self):
            raise DataError(
                f"episodes must name one or more of 0..{len(self) - 1}, got {wanted.tolist()[:8]}"
            )
        rows = np.concatenate([np.arange(int(self.starts[i]), int(self.ends[i])) for i in wanted])
        return replace(
            self,
            observation={key: take(array, rows) for key, array in self.observation.items()},
            action=take(self.action, rows),
            ends=np.cumsum(self.lengths[wanted]),
            reward=None if self.reward is None else take(self.reward, rows),
            terminated=None if self.terminated is None else take(self.terminated, rows),
            success=None if self.success is None else self.success[wanted],
            extra={key: take(array, rows) for key, array in self.extra.items()},
        )

    def check_finite(self) -> None:
        """Raise naming the first array, episode and step that holds a NaN or an infinity."""
        for name, array in self._per_step():
            if array.dtype.kind != "f":
                continue
            bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if bad.any():
                step = int(np.argmax(bad))
                episode = int(np.searchsorted(self.ends, step, side="right"))
                raise DataError(
                    f"{name} is not finite at episode {episode}, step {step - int(self.starts[episode])} "
                    f"({int(bad.sum())} bad steps in all): {array[step]}; drop the episode with select() or repair it"
                )


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """All episodes of several sets, in order; the specs must be equal."""
    if not parts:
        raise DataError("nothing to concatenate: give at least one set of episodes")
    first = parts[0]
    for other in parts[1:]:
        if other.spec != first.spec:
            raise DataError(f"specs differ: {first.spec.to_dict()} and {other.spec.to_dict()}")
    offsets = np.cumsum([0, *(part.steps for part in parts[:-1])])

    def join_known(arrays: Sequence[Array | None]) -> Array | None:
        present = [array for array in arrays if array is not None]
        return join(present) if len(present) == len(arrays) else None

    shared = [key for key in first.extra if all(key in part.extra for part in parts)]
    extra = {key: join([part.extra[key] for part in parts]) for key in shared}
    metadata = dict(first.metadata)
    if "task_index" in extra and all("tasks" in part.metadata for part in parts):
        extra["task_index"], metadata["tasks"] = _join_tasks(parts)
    return Episodes(
        spec=first.spec,
        observation={k: join([part.observation[k] for part in parts]) for k in first.observation},
        action=np.concatenate([part.action for part in parts]),
        ends=np.concatenate([part.ends + offset for part, offset in zip(parts, offsets, strict=True)]),
        reward=join_known([part.reward for part in parts]),
        terminated=join_known([part.terminated for part in parts]),
        success=join_known([part.success for part in parts]),
        extra=extra,
        metadata=metadata,
    )


def _join_tasks(parts: Sequence[Episodes]) -> tuple[Array, list[str]]:
    """`task_index` of all steps, counting one list of tasks instead of one list per part."""
    tasks = list(dict.fromkeys(task for part in parts for task in part.metadata["tasks"]))
    renumbered = [
        np.array([tasks.index(task) for task in part.metadata["tasks"]])[part.extra["task_index"]]
        for part in parts
    ]
    return np.concatenate(renumbered), tasks


_OPTIONAL = ("reward", "terminated", "success")


def save_episodes(episodes: Episodes, folder: Path | str) -> None:
    """Write a folder of `.npy` files and `episodes.json` that `open_episodes` can map; whole or not at all."""
    check_replaceable(Path(folder), "episodes.json")
    for key in (*episodes.observation, *episodes.extra):
        if "/" in key:
            raise DataError(f"array name {key!r} cannot be a file name; rename it without '/'")
    with atomic_folder(Path(folder)) as temporary:
        np.save(temporary / "action.npy", episodes.action)
        np.save(temporary / "ends.npy", episodes.ends)
        for name in _OPTIONAL:
            if (array := getattr(episodes, name)) is not None:
                np.save(temporary / f"{name}.npy", array)
        for group in ("observation", "extra"):
            for key, array in getattr(episodes, group).items():
                save_array(temporary / f"{group}.{key}.npy", array)
        description = {
            "spec": episodes.spec.to_dict(),
            "extra": list(episodes.extra),
            "metadata": dict(episodes.metadata),
        }
        (temporary / "episodes.json").write_text(json.dumps(description, indent=2))


def open_episodes(folder: Path | str, *, memory_map: bool = True) -> Episodes:
    """Open what `save_episodes` wrote; with `memory_map`, arrays stay on disk until touched."""
    folder = Path(folder)
    if not folder.exists():
        recover_folder(folder)
    try:
        return _open(folder, memory_map)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a folder of save_episodes(), or not whole: no {Path(error.filename).name}"
        ) from error
    except SensorimotorError as error:
        raise type(error)(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise DataError(f"{folder} is damaged ({error}); copy or write it again") from error


def _open(folder: Path, memory_map: bool) -> Episodes:
    description = json.loads((folder / "episodes.json").read_text())
    spec = Spec.from_dict(description["spec"])

    def read(name: str) -> Array:
        path = folder / f"{name}.npy"
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)

    optional = {name: read(name) for name in _OPTIONAL if (folder / f"{name}.npy").exists()}
    return Episodes(
        spec=spec,
        observation={key: read(f"observation.{key}") for key in spec.observation},
        action=read("action"),
        ends=np.load(folder / "ends.npy", allow_pickle=False),
        extra={key: read(f"extra.{key}") for key in description["extra"]},
        metadata=description["metadata"],
        **optional,
    )
