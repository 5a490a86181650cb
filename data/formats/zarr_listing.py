"""A Zarr v2 store looked over before the Zarr package touches it.

An array may name any codec, and one of them unpickles; a chunk that is absent reads as zeros without a word; and a
Blosc chunk that was cut is decoded past its end. None of these is an error there, so they are found here.
"""

import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from ..errors import DataError

_CODECS = ("blosc", "bz2", "delta", "gzip", "lz4", "lzma", "shuffle", "zlib", "zstd")
_BLOSC_HEADER = np.dtype([("flags", "u1", 4), ("raw", "<u4"), ("block", "<u4"), ("size", "<u4")])
_Read = Callable[[str, int], bytes]  # the first so many bytes of a member; all for -1


@dataclass(frozen=True)
class Listing:
    """What a store holds.

    Attributes:
        arrays: "data/state" -> its `.zarray`.
        attributes: of the root.
        absent: array -> how many of its chunks are absent.
    """

    arrays: Mapping[str, Mapping[str, Any]]
    attributes: Mapping[str, Any]
    absent: Mapping[str, int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """List a folder or zip; refuse what is not a replay buffer, could run code, or was cut."""
        if path.is_dir():
            if (path / "zarr.json").exists():
                raise DataError("this is a Zarr v3 store; write it again with zarr_format=2")
            files = [p for p in path.rglob("*") if p.is_file()]
            return cls._list(
                {p.relative_to(path).as_posix(): p.stat().st_size for p in files}, _folder_reader(path)
            )
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
            for name in sizes:
                _check_member(name)
            return cls._list(sizes, _zip_reader(archive))

    @classmethod
    def _list(cls, sizes: Mapping[str, int], read: _Read) -> Self:
        names = sorted(name.removesuffix("/.zarray") for name in sizes if name.endswith("/.zarray"))
        arrays = {name: json.loads(read(f"{name}/.zarray", -1)) for name in names}
        if "meta/episode_ends" not in arrays or not any(name.startswith("data/") for name in arrays):
            raise DataError(f"a replay buffer has data/<key> and meta/episode_ends; this has {names}")
        absent = {}
        for name, array in arrays.items():
            _check_codecs(name, array)
            grid = [math.ceil(n / c) for n, c in zip(array["shape"], array["chunks"], strict=True)]
            chunks = [
                m for m in sizes if m.startswith(f"{name}/") and _in_grid(m.removeprefix(f"{name}/"), grid)
            ]
            if (array.get("compressor") or {}).get("id") == "blosc":
                _check_blosc(chunks, sizes, read)
            if len(chunks) < math.prod(grid):
                absent[name] = math.prod(grid) - len(chunks)
        return cls(arrays, json.loads(read(".zattrs", -1)) if ".zattrs" in sizes else {}, absent)

    def names(self, group: str) -> list[str]:
        """Arrays directly in a group."""
        parts = [PurePosixPath(name).parts for name in self.arrays]
        return [part[1] for part in parts if len(part) == 2 and part[0] == group]


def _folder_reader(path: Path) -> _Read:
    def read(name: str, count: int) -> bytes:
        with (path / name).open("rb") as file:
            return file.read(count)

    return read


def _zip_reader(archive: zipfile.ZipFile) -> _Read:
    def read(name: str, count: int) -> bytes:
        with archive.open(name) as file:
            return file.read(count)

    return read


def _check_member(name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name:
        raise DataError(f"the zip names the member {name!r}, outside itself; get it from a source you trust")


def _check_codecs(name: str, array: Mapping[str, Any]) -> None:
    codecs = [array.get("compressor"), *(array.get("filters") or ())]
    unknown = [codec.get("id") for codec in codecs if codec is not None and codec.get("id") not in _CODECS]
    if unknown:
        raise DataError(f"{name} uses the codec {unknown[0]!r}; allowed are {', '.join(_CODECS)}")
    dtype = array["dtype"]
    if not isinstance(dtype, str) or not re.fullmatch(r"[<>|][fiubU]\d+", dtype):
        raise DataError(f"{name} holds {dtype}; arrays must hold numbers, booleans or text of one length")


def _check_blosc(chunks: list[str], sizes: Mapping[str, int], read: _Read) -> None:
    """Each chunk says its own compressed size; the decoder trusts it."""
    for chunk in chunks:
        head = read(chunk, _BLOSC_HEADER.itemsize)
        said = np.frombuffer(head, _BLOSC_HEADER)["size"][0] if len(head) == _BLOSC_HEADER.itemsize else -1
        if said != sizes[chunk]:
            raise DataError(
                f"chunk {chunk} has {sizes[chunk]} bytes and was written with {said}; copy it again"
            )


def _in_grid(chunk: str, grid: list[int]) -> bool:
    if not re.fullmatch(r"\d+([./]\d+)*", chunk):
        return False
    index = [int(i) for i in re.split(r"[./]", chunk)]
    return len(index) == len(grid) and all(i < n for i, n in zip(index, grid, strict=True))
