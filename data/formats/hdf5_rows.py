"""Rows of HDF5 datasets, read when they are asked for."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..episodes import Array
from ..errors import DataError
from ..lazy import LazyArray

_GZIP, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


class Hdf5Rows(LazyArray):
    """The rows of several datasets of one file, end to end.

    Plain contiguous datasets are read through a memory map, without HDF5. Of datasets with one row per chunk that are
    packed with gzip alone, HDF5 hands over the packed bytes. Everything else HDF5 reads in runs of neighbouring rows.
    """

    def __init__(self, path: Path, datasets: Sequence[h5py.Dataset]) -> None:
        """Take note of where the rows are.

        Args:
            path: the file.
            datasets: of this file, with rows of one shape and type; they are not kept.

        Raises:
            DataError: if their rows differ.
        """
        first = datasets[0]
        for other in datasets:
            if other.shape[1:] != first.shape[1:] or other.dtype != first.dtype:
                raise DataError(
                    f"{other.name} is {other.dtype}{list(other.shape[1:])} per row, "
                    f"{first.name} is {first.dtype}{list(first.shape[1:])}"
                )
        steps = [len(dataset) for dataset in datasets]
        super().__init__((sum(steps), *first.shape[1:]), first.dtype)
        self.path, self.names = path.resolve(), tuple(str(dataset.name) for dataset in datasets)
        self.bounds = np.cumsum([0, *steps])
        self.row_bytes = self.nbytes // max(1, len(self))
        self.offsets = self._find_offsets(datasets)
        self.packed = all(self._one_gzip_row_per_chunk(dataset) for dataset in datasets)
        self._process: int | None = None
        self._file: h5py.File | None = None
        self._open: dict[int, h5py.Dataset] = {}
        self._map: NDArray[np.uint8] | None = None

    def _find_offsets(self, datasets: Sequence[h5py.Dataset]) -> NDArray[np.int64] | None:
        """(N,) byte at which each row begins in the file, or None if the rows do not lie there as they are."""
        starts = [dataset.id.get_offset() for dataset in datasets]
        if any(start is None for start in starts) or not self.dtype.isnative:
            return None
        rows = [
            start + self.row_bytes * np.arange(len(dataset))
            for start, dataset in zip(starts, datasets, strict=True)
        ]
        return np.concatenate(rows).astype(np.int64)

    def _one_gzip_row_per_chunk(self, dataset: h5py.Dataset) -> bool:
        plan = dataset.id.get_create_plist()
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        unshuffled = self.dtype.itemsize == 1  # of single bytes, shuffling changes nothing
        known = filters in ([_GZIP], [_SHUFFLE, _GZIP] if unshuffled else [_GZIP])
        stored = known and dataset.chunks == (1, *dataset.shape[1:])
        return stored and dataset.id.get_num_chunks() == len(dataset)  # HDF5 fills in those never written

    def read(self, rows: NDArray[np.int64]) -> Array:
        """Rows by the fastest way that the file's layout allows.

        Raises:
            DataError: if the file was moved, cut short or damaged.
        """
        if self._process != os.getpid():
            self._reopen()
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if self._map is not None and self.offsets is not None:
            flat = found.reshape(len(rows), -1).view(np.uint8)
            for place, start in enumerate(self.offsets[rows].tolist()):
                flat[place] = self._map[start : start + self.row_bytes]
            return found
        cuts = np.searchsorted(rows, self.bounds)
        for number in np.flatnonzero(np.diff(cuts)).tolist():
            begin, end = int(cuts[number]), int(cuts[number + 1])
            self._read_from(number, rows[begin:end] - self.bounds[number], found[begin:end])
        return found

    def _read_from(self, number: int, rows: NDArray[np.int64], found: Array) -> None:
        """Rows of one dataset, into `found`."""
        dataset = self._dataset(number)
        try:
            self._fill(dataset, rows, found)
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise DataError(
                f"{self.path} is damaged: rows {rows[0]} to {rows[-1]} of {self.names[number]} cannot be read "
                f"({error}); copy or record it again"
            ) from error

    def _fill(self, dataset: h5py.Dataset, rows: NDArray[np.int64], found: Array) -> None:
        if self.packed:
            rest = (0,) * (self.ndim - 1)
            for place, row in enumerate(rows.tolist()):
                skipped, raw = dataset.id.read_direct_chunk((row, *rest))
                raw = bytes(raw) if skipped else zlib.decompress(raw)
                found[place] = np.frombuffer(raw, self.dtype).reshape(self.shape[1:])
            return
        runs = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip([0, *runs.tolist()], [*runs.tolist(), len(rows)], strict=True):
            found[first:last] = dataset[int(rows[first]) : int(rows[last - 1]) + 1]

    def _dataset(self, number: int) -> h5py.Dataset:
        if number not in self._open:
            if self._file is None:
                raise DataError(f"{self.path} is not open")
            dataset = self._file[self.names[number]]
            if not isinstance(dataset, h5py.Dataset):
                raise DataError(f"{self.path} has changed: {self.names[number]} is no dataset any more")
            self._open[number] = dataset
        return self._open[number]

    def _reopen(self) -> None:
        """Open the file for this process; what a parent process had open is let go first."""
        self.close()
        try:
            if self.offsets is not None:
                self._map = np.memmap(self.path, np.uint8, mode="r")
            else:
                self._file = h5py.File(self.path, "r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read any more ({error}); was it moved?") from error
        if self._map is not None and self.offsets is not None and len(self.offsets):
            needed = int(self.offsets.max()) + self.row_bytes
            if len(self._map) < needed:
                raise DataError(
                    f"{self.path} is cut short: {len(self._map)} bytes, {needed} are needed; copy or record it again"
                )
        self._process = os.getpid()

    def close(self) -> None:
        """Let go of the file; it is opened again when rows are asked for."""
        self._open.clear()
        if self._file is not None:
            self._file.close()
        self._file, self._map, self._process = None, None, None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is open."""
        return {**self.__dict__, "_process": None, "_file": None, "_open": {}, "_map": None}
