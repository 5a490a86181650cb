"""Diffusion Policy's replay buffer: a Zarr v2 store with `data/<key>` and `meta/episode_ends`, folder or zip."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..files import atomic_file, atomic_folder, check_replaceable
from ..lazy import is_lazy
from ..spec import Spec
from .description import DESCRIPTION_KEY, Description, assemble, columns
from .foreign import Choice, derive, sort_columns
from .opening import note, reading, require
from .zarr_listing import Listing

_CHUNK_BYTES = 1 << 20


def read_zarr(
    path: Path | str,
    *,
    spec: Spec | None = None,
    control_hz: float | None = None,
    observation: Choice | None = None,
) -> Episodes:
    """Read a replay buffer, from a folder or a `.zip`; nothing is extracted.

    Args:
        path: the store.
        spec: what the store must hold; checked.
        control_hz: control steps per second, needed where the store does not say it.
        observation: for stores that are not ours; our observation keys and the store's names for them.
    """
    path = Path(path)
    zarr = require("zarr", "reading Zarr")
    with reading(path, "Zarr v2 replay buffer", zipfile.BadZipFile, RuntimeError):
        listing = Listing.of(path)
        metadata: dict[str, Any] = {}
        text = listing.attributes.get(DESCRIPTION_KEY)
        if absent := listing.absent:
            message = f"{path}: chunks are absent and read as zeros: {absent}"
            if text is not None:
                raise DataError(f"{message}; every chunk was written, so the store is damaged: copy it again")
            note(metadata, message)
        with _open(zarr, path) as root:
            arrays = {name: root[f"data/{name}"][:] for name in listing.names("data")}
            ends = root["meta/episode_ends"][:]
            success = root["meta/success"][:] if "success" in listing.names("meta") else None
        if text is not None:
            described = Description.from_json(text)
            return assemble(
                described, arrays, ends, success, spec=spec, control_hz=control_hz, choice=observation
            )
        found, roles = sort_columns(arrays)
        return derive(
            found, roles, {}, ends, spec=spec, control_hz=control_hz, choice=observation, metadata=metadata
        )


@contextlib.contextmanager
def _open(zarr: Any, path: Path) -> Iterator[Any]:
    kind = zarr.storage.LocalStore if path.is_dir() else zarr.storage.ZipStore
    store = kind(path, read_only=True)
    try:
        yield zarr.open_group(store, mode="r", zarr_format=2)
    finally:
        store.close()


def write_zarr(episodes: Episodes, path: Path | str) -> None:
    """Write a replay buffer: a zip if the name ends in `.zip`, else a folder; whole or not at all."""
    path = Path(path)
    zarr = require("zarr", "writing Zarr")
    description = Description.of(episodes).to_json()
    if path.suffix == ".zip":
        with atomic_file(path) as temporary:
            store = zarr.storage.ZipStore(temporary, mode="w", compression=zipfile.ZIP_STORED)
            try:
                _fill(zarr, store, episodes, description)
            finally:
                store.close()
    else:
        check_replaceable(path, ".zgroup")
        with atomic_folder(path) as temporary:
            _fill(zarr, zarr.storage.LocalStore(temporary), episodes, description)


def _fill(zarr: Any, store: Any, episodes: Episodes, description: str) -> None:
    root = zarr.create_group(store, zarr_format=2, attributes={DESCRIPTION_KEY: description})
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, array in columns(episodes).items():
        _put(data, name, array)
    _put(meta, "episode_ends", episodes.ends)
    if episodes.success is not None:
        _put(meta, "success", episodes.success)


def _put(group: Any, name: str, array: Array) -> None:
    array = array if is_lazy(array) else np.ascontiguousarray(array)
    rows = max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))
    made = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(rows, *array.shape[1:]),
        compressors=_compressor(),
        config={"write_empty_chunks": True},  # an absent chunk then always means damage
    )
    for start in range(0, len(array), rows) if is_lazy(array) else ():
        made[start : start + rows] = array[start : start + rows]
    if not is_lazy(array):
        made[:] = array


def _compressor() -> Any:
    try:
        from numcodecs import Blosc
    except ImportError:
        return "auto"  # numcodecs built without Blosc
    return Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
