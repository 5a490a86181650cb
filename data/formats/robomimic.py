"""robomimic's HDF5 file, our native training file: one group per demonstration under `data`.

    data (attributes: total, env_args as JSON)
      demo_0 (attribute: num_samples)
        [attribute: model_file], actions, rewards, dones, [states], obs/<key>, next_obs/<key>
    mask/<filter>: names of demonstrations

What robomimic has no place for stands in attributes it ignores. `next_obs` is the observation one step later, the
last one repeated, unless the file we read it from said otherwise; such recorded next observations are kept as extra
arrays `next_obs.<key>`, and filters as extra arrays `mask.<filter>` (N,), so that both survive `select`.
"""

import errno
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..files import atomic_file
from ..lazy import as_array, is_lazy, take
from ..schema import nearest
from ..spec import Spec
from . import hdf5
from .description import DESCRIPTION_KEY, Description, agreed_rate, assemble, columns
from .foreign import Choice, derive
from .hdf5_rows import Hdf5Rows
from .opening import reading

_GYM = 2  # robomimic's number for a plain Gymnasium environment
_NEXT, _MASK = "next_obs.", "mask."
# HDF5 of 2018 and later: in older files the headers of many small arrays outweigh the arrays.
_COMPACT = ("v110", "v110")
_STANDARD = {"actions": "action", "rewards": "reward", "dones": "terminated"}


def read_robomimic(
    path: Path | str,
    *,
    spec: Spec | None = None,
    control_hz: float | None = None,
    observation: Choice | None = None,
    filter_key: str | None = None,
    next_observation: bool = True,
    lazy_images: bool = False,
) -> Episodes:
    """Read a robomimic file, ours or any other.

    Args:
        path: the `.hdf5` file.
        spec: what the file must hold; checked.
        control_hz: control steps per second, needed where `env_args` does not name a `control_freq`.
        observation: for files that are not ours; our observation keys and the file's names for them.
        filter_key: read only the demonstrations of this filter, such as `train` or `valid`.
        next_observation: keep recorded next observations that do not follow from the observations.
        lazy_images: leave camera frames in the file until they are needed; recorded next frames are left out.
    """
    path = Path(path)
    with reading(path, "robomimic HDF5 file", RuntimeError), h5py.File(path, "r") as file:
        data = hdf5.group(file, "data")
        demos = _demo_names(file, filter_key)
        parts = [_read_demo(hdf5.group(data, name), next_observation, lazy_images) for name in demos]
        ends = np.cumsum([len(part["actions"]) for part in parts])
        arrays = _join(parts, path)
        arrays |= {} if filter_key else _read_masks(file, demos, ends)
        if DESCRIPTION_KEY in data.attrs:
            frames = tuple(f"{_NEXT}{key}" for key in _lazy_keys(arrays))
            absent = (*((_MASK,) if filter_key else ()), *(frames if next_observation else (_NEXT,)))
            description = _without(Description.from_json(hdf5.text(data, DESCRIPTION_KEY, "")), absent)
            success = _success(data, demos) if "success" in description.optional else None
            return assemble(
                description,
                _ours(arrays),
                ends,
                success,
                spec=spec,
                control_hz=control_hz,
                choice=observation,
            )
        env_args = _env_args(data)
        found = {key.removeprefix("obs/"): a for key, a in arrays.items() if key.startswith("obs/")}
        left = {k: a for k, a in arrays.items() if k not in _STANDARD and not k.startswith("obs/")}
        return derive(
            found,
            {ours: arrays[theirs] for theirs, ours in _STANDARD.items() if theirs in arrays},
            {k: a for k, a in left.items() if not _derivable(k, a, found, ends)},
            ends,
            spec=spec,
            control_hz=agreed_rate(env_args.get("env_kwargs", {}).get("control_freq"), control_hz),
            choice=observation,
            metadata={"env_args": env_args} if env_args else {},
        )


def _demo_names(file: h5py.File, filter_key: str | None) -> list[str]:
    present = hdf5.names(hdf5.group(file, "data"))
    chosen = present if filter_key is None else _filter(file, filter_key)
    odd = [name for name in chosen if not re.fullmatch(r"demo_\d+", name) or name not in present]
    if odd or not chosen:
        raise DataError(f"demonstrations are groups data/demo_<number>; found {odd or 'none'}")
    return sorted(chosen, key=lambda name: int(name.removeprefix("demo_")))  # demo_10 after demo_2


def _filters(file: h5py.File) -> list[str]:
    return hdf5.names(hdf5.group(file, "mask")) if "mask" in file else []


def _filter(file: h5py.File, key: str) -> list[str]:
    if key not in _filters(file):
        raise DataError(f"there is no filter {key!r}; {nearest(key, _filters(file))}")
    names = hdf5.array(hdf5.group(file, "mask"), key)
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _read_demo(
    demo: h5py.Group, next_observation: bool, lazy_images: bool
) -> dict[str, Array | h5py.Dataset]:
    """Arrays of one demonstration by path: `actions`, `obs/<key>`, `next_obs.<key>`, `states`, ..."""
    arrays: dict[str, Array | h5py.Dataset] = {}
    for name in hdf5.names(demo):
        if not hdf5.is_group(demo, name):
            arrays[name] = hdf5.array(demo, name)
        elif name != "next_obs" or next_observation:
            prefix = "obs/" if name == "obs" else f"{name}."
            inner = hdf5.group(demo, name)
            for key in hdf5.names(inner):
                dataset = hdf5.dataset(inner, key)
                if not lazy_images or not _holds_frames(dataset):
                    arrays[f"{prefix}{key}"] = hdf5.array(inner, key)
                elif name != "next_obs":
                    arrays[f"{prefix}{key}"] = dataset
    if "actions" not in arrays:
        raise DataError(f"{demo.name} has no actions; it holds {sorted(arrays)}")
    steps = len(arrays["actions"])
    if int(demo.attrs.get("num_samples", steps)) != steps:
        raise DataError(f"{demo.name} says {demo.attrs['num_samples']} samples and holds {steps} actions")
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != steps:
            raise DataError(f"{demo.name}/{name} has shape {array.shape} for {steps} actions")
    return arrays


def _holds_frames(dataset: h5py.Dataset) -> bool:
    return dataset.ndim == 4 and dataset.dtype == np.uint8


def _lazy_keys(arrays: Mapping[str, Array]) -> list[str]:
    return [key.removeprefix("obs/") for key, array in arrays.items() if is_lazy(array)]


def _join(demos: list[dict[str, Array | h5py.Dataset]], path: Path) -> dict[str, Array]:
    for number, demo in enumerate(demos):
        if set(demo) != set(demos[0]):
            odd = sorted(set(demo) ^ set(demos[0]))
            raise DataError(f"demonstration {number} and the first one differ in {odd}")
    joined: dict[str, Array] = {}
    for name in list(demos[0]):
        found = [demo.pop(name) for demo in demos]
        lazy = [part for part in found if isinstance(part, h5py.Dataset)]
        joined[name] = as_array(Hdf5Rows(path, lazy)) if lazy else np.concatenate(found)
    return joined


def _read_masks(file: h5py.File, demos: list[str], ends: Array) -> dict[str, Array]:
    lengths = np.diff(ends, prepend=0)
    filters = {key: set(_filter(file, key)) for key in _filters(file)}
    return {
        f"{_MASK}{key}": np.repeat([name in chosen for name in demos], lengths)
        for key, chosen in filters.items()
    }


def _following(array: Array, ends: Array) -> Array:
    """The observation one step later, the last of each episode repeated."""
    rows = np.arange(1, len(array) + 1)
    rows[ends - 1] = ends - 1
    return take(array, rows)


def _derivable(name: str, array: Array, observation: Mapping[str, Array], ends: Array) -> bool:
    source = observation.get(name.removeprefix(_NEXT)) if name.startswith(_NEXT) else None
    return source is not None and np.array_equal(array, _following(source, ends))


def _env_args(data: h5py.Group) -> dict[str, Any]:
    args = json.loads(hdf5.text(data, "env_args", "{}"))
    if not isinstance(args, dict):
        raise DataError(f"env_args must be a JSON object, got {args!r}")
    return args


def _without(description: Description, prefixes: tuple[str, ...]) -> Description:
    extra = {key: shape for key, shape in description.extra.items() if not key.startswith(prefixes)}
    return replace(description, extra=extra)


def _success(data: h5py.Group, demos: list[str]) -> Array:
    return np.array([bool(data[name].attrs["success"]) for name in demos])


def _ours(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of a file of ours by our names."""
    named = {_STANDARD.get(name, name.removeprefix("obs/")): array for name, array in arrays.items()}
    return named | {"terminated": named["terminated"].astype(bool)}


def write_robomimic(
    episodes: Episodes, path: Path | str, *, compression: Literal["gzip"] | None = None
) -> None:
    """Write a robomimic file; it appears whole or not at all.

    `metadata` may hold `env_args`, and `model_file`, the simulator's model as XML, which robomimic's playback wants of
    every demonstration. Rewards that are not known are written as zeros and unknown ends as the last step of each episode, because
    robomimic wants both; reading the file back gives None for them again.
    """
    description = Description.of(episodes, reserved=(*_STANDARD, "obs", "next_obs"))
    arrays, masks = _stored(episodes)
    arrays = {name: hdf5.stored(array) for name, array in arrays.items()}
    env_args = episodes.metadata.get("env_args") or {
        "env_name": str(episodes.metadata.get("task", "unknown")),
        "type": _GYM,
        "env_kwargs": {"control_freq": episodes.spec.control_hz},
    }
    path = Path(path)
    if compression is None:
        _check_space(path, sum(array.nbytes for array in arrays.values()))
    with atomic_file(path) as temporary, h5py.File(temporary, "w", libver=_COMPACT) as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes.steps
        data.attrs["env_args"] = json.dumps(env_args)
        data.attrs[DESCRIPTION_KEY] = description.to_json()
        for i, (start, end) in enumerate(zip(episodes.starts, episodes.ends, strict=True)):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = int(end - start)
            if "model_file" in episodes.metadata:
                demo.attrs["model_file"] = episodes.metadata["model_file"]
            if episodes.success is not None:
                demo.attrs["success"] = bool(episodes.success[i])
            for name, array in arrays.items():
                demo.create_dataset(name, data=array[start:end], **_packing(array, compression))
        for key, mask in masks.items():
            chosen = [f"demo_{i}".encode() for i, start in enumerate(episodes.starts) if mask[start]]
            file.create_dataset(f"mask/{key}", data=np.array(chosen, dtype="S16"))


def _packing(array: Array, compression: str | None) -> dict[str, Any]:
    """How a dataset is packed; camera frames one by one, so that a single one can be read."""
    if compression is None:
        return {}
    alone = {"chunks": (1, *array.shape[1:])} if array.ndim == 4 else {}
    return {"compression": compression, "shuffle": True, **alone}


def _check_space(path: Path, needed: int) -> None:
    """Raise before HDF5 runs into a full disk: it can then neither write its file nor close it."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"No space left for {path}: needs {needed:,} bytes, {free:,} are free; compress or move it",
        )


def _stored(episodes: Episodes) -> tuple[dict[str, Array], dict[str, Array]]:
    """Every array by its path inside a demonstration, and the filters."""
    arrays = columns(episodes)
    masks = {k.removeprefix(_MASK): arrays.pop(k) for k in episodes.extra if _is_mask(k, episodes)}
    reward = arrays.pop("reward", np.zeros(episodes.steps, np.float32))
    terminated = arrays.pop("terminated", None)
    if terminated is None:
        terminated = np.zeros(episodes.steps, bool)
        terminated[episodes.ends - 1] = True
    stored = {"actions": arrays.pop("action"), "rewards": reward, "dones": terminated.astype(np.uint8)}
    for key in episodes.observation:
        stored[f"obs/{key}"] = arrays.pop(key)
        following = arrays.pop(f"{_NEXT}{key}", None)
        stored[f"next_obs/{key}"] = (
            _following(stored[f"obs/{key}"], episodes.ends) if following is None else following
        )
    for key, array in arrays.items():  # only extra arrays are left
        group, _, rest = key.partition(".")
        path = f"{group}/{rest}" if rest else group
        if group == "obs" or group in stored or any(other.startswith(f"{path}/") for other in stored):
            raise DataError(f"extra array {key!r} would share its place in the file with another; rename it")
        stored[path] = array
    return stored, masks


def _is_mask(key: str, episodes: Episodes) -> bool:
    array = episodes.extra[key]
    whole = np.repeat(array[episodes.starts], episodes.lengths, axis=0)
    return key.startswith(_MASK) and array.dtype == bool and array.ndim == 1 and np.array_equal(array, whole)
