"""Diffusion Policy's replay buffer: a Zarr v2 store with `data/<key>` and `meta/episode_ends`, folder or zip.

Every array's metadata is read and checked before the Zarr package sees the store: a Zarr v2 array may name any
codec, one of which unpickles, and a chunk that is absent reads as zeros without a word.
"""

import contextlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..episodes import Array, Episodes
from ..errors import DataError
from ..files import atomic_file, atomic_folder, check_replaceable
from ..spec import Spec
from .description import DESCRIPTION_KEY, Description, assemble, columns
from .foreign import Choice, derive, sort_columns
from .opening import note, reading, require

_CODECS = ("blosc", "bz2", "delta", "gzip", "lz4", "lzma", "shuffle", "zlib", "zstd")
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
        listing = _Listing.of(path)
        listing.check()
        metadata: dict[str, Any] = {}
        text = listing.attributes.get(DESCRIPTION_KEY)
        if absent := listing.absent_chunks():
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


@dataclass(frozen=True)
class _Listing:
    """Names of everything in a store, and its parsed metadata files."""

    members: frozenset[str]
    arrays: Mapping[str, Mapping[str, Any]]  # "data/state" -> its .zarray
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> "_Listing":
        if path.is_dir():
            if (path / "zarr.json").exists():
                raise DataError("this is a Zarr v3 store; write it again with zarr_format=2")
            members = frozenset(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
            return cls._parse(members, lambda name: (path / name).read_text())
        with zipfile.ZipFile(path) as archive:
            members = frozenset(name for name in archive.namelist() if not name.endswith("/"))
            _check_members(members)
            return cls._parse(members, lambda name: archive.read(name).decode())

    @classmethod
    def _parse(cls, members: frozenset[str], read: Callable[[str], str]) -> "_Listing":
        arrays = {
            name.removesuffix("/.zarray"): json.loads(read(name))
            for name in sorted(members)
            if name.endswith("/.zarray")
        }
        return cls(members, arrays, json.loads(read(".zattrs")) if ".zattrs" in members else {})

    def names(self, group: str) -> list[str]:
        """Arrays directly in a group."""
        return [
            name.split("/")[1]
            for name in self.arrays
            if name.count("/") == 1 and name.startswith(f"{group}/")
        ]

    def check(self) -> None:
        """Refuse what is not a replay buffer, and codecs or types that could run code."""
        if "meta/episode_ends" not in self.arrays or not self.names("data"):
            raise DataError(
                f"a replay buffer has data/<key> and meta/episode_ends; this has {list(self.arrays)}"
            )
        for name, array in self.arrays.items():
            codecs = [array.get("compressor"), *(array.get("filters") or ())]
            unknown = [c.get("id") for c in codecs if c is not None and c.get("id") not in _CODECS]
            if unknown:
                raise DataError(f"{name} uses the codec {unknown[0]!r}; allowed are {', '.join(_CODECS)}")
            if not isinstance(array["dtype"], str) or array["dtype"][1] not in "fiub":
                raise DataError(f"{name} holds {array['dtype']}; arrays must hold numbers or booleans")

    def absent_chunks(self) -> dict[str, int]:
        """How many chunks are absent, by array."""
        counts = {}
        for name, array in self.arrays.items():
            grid = [math.ceil(n / c) for n, c in zip(array["shape"], array["chunks"], strict=True)]
            present = sum(
                _in_grid(m.removeprefix(f"{name}/"), grid) for m in self.members if m.startswith(name)
            )
            if present < math.prod(grid):
                counts[name] = math.prod(grid) - present
        return counts


def _in_grid(chunk: str, grid: list[int]) -> bool:
    if not re.fullmatch(r"\d+([./]\d+)*", chunk):
        return False
    index = [int(i) for i in re.split(r"[./]", chunk)]
    return len(index) == len(grid) and all(i < n for i, n in zip(index, grid, strict=True))


def _check_members(members: frozenset[str]) -> None:
    for name in members:
        if (
            name.startswith(("/", "\\"))
            or ".." in PurePosixPath(name.replace("\\", "/")).parts
            or ":" in name
        ):
            raise DataError(
                f"the zip names the member {name!r}, outside itself; get it from a source you trust"
            )


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
    array = np.ascontiguousarray(array)
    rows = max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))
    made = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(rows, *array.shape[1:]),
        compressors=_compressor(),
        config={"write_empty_chunks": True},  # an absent chunk then always means damage
    )
    made[:] = array


def _compressor() -> Any:
    try:
        from numcodecs import Blosc
    except ImportError:
        return "auto"  # numcodecs built without Blosc
    return Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
