"""Arrays that stay where they are until rows of them are asked for: camera frames outgrow memory.

A `LazyArray` stands wherever an array of `Episodes` is indexed by its first axis. Reading rows gives plain NumPy arrays,
bit for bit those that reading everything would have given. Selecting, joining and mapping stay lazy.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK_BYTES = 32 << 20  # so much is read at a time where everything passes through


class LazyArray(ABC):
    """Rows (N, *shape) somewhere else.

    Handles of files are opened by the process that reads, so an array may be pickled, and used after a fork.

    Attributes:
        shape: as NumPy counts it.
        dtype: of the rows.
    """

    # NumPy would otherwise take an operation with this on its right side apart, element by element.
    __array_ufunc__ = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Say what the rows are like; opens nothing."""
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Array:
        """The rows (n, *shape) of these numbers (n,), which increase."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes it would take in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> Array:
        """Rows by one number, a slice, numbers in an array of any shape, or (N,) flags.

        Each row is read once, in increasing order, however often and wherever it is asked for.
        """
        wanted = np.arange(len(self))[index]  # NumPy's own meaning of an index, and its errors
        rows, places = np.unique(wanted, return_inverse=True)
        found = self.read(rows) if len(rows) else np.empty((0, *self.shape[1:]), self.dtype)
        if wanted.ndim == 0:
            return found[0]
        if wanted.ndim == 1 and len(rows) == len(wanted) and np.array_equal(rows, wanted):
            return found
        return found[places.reshape(wanted.shape)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Everything, in memory."""
        return np.asarray(self[:], dtype=dtype)


class Taken(LazyArray):
    """Rows of another array, in any order, repeated or not."""

    def __init__(self, source: LazyArray, rows: NDArray[np.int64]) -> None:
        """See `source` through `rows` (n,)."""
        super().__init__((len(rows), *source.shape[1:]), source.dtype)
        if isinstance(source, Taken):
            source, rows = source.source, source.rows[rows]
        self.source, self.rows = source, rows

    def read(self, rows: NDArray[np.int64]) -> Array:
        """Rows of the source."""
        return self.source[self.rows[rows]]


class Joined(LazyArray):
    """Several arrays end to end; some of them may be in memory."""

    def __init__(self, parts: Sequence[Array | LazyArray]) -> None:
        """Join arrays whose rows are alike."""
        steps = [len(part) for part in parts]
        super().__init__((sum(steps), *parts[0].shape[1:]), parts[0].dtype)
        self.parts, self.bounds = tuple(parts), np.cumsum([0, *steps])

    def read(self, rows: NDArray[np.int64]) -> Array:
        """Rows of the parts, in turn."""
        cuts = np.searchsorted(rows, self.bounds)
        return np.concatenate(
            [
                part[rows[first:last] - start]
                for part, start, first, last in zip(
                    self.parts, self.bounds[:-1], cuts[:-1], cuts[1:], strict=True
                )
                if last > first
            ]
        )


class Mapped(LazyArray):
    """Every row of another array changed on its way; a function defined in a module, so that it can be pickled."""

    def __init__(self, source: LazyArray, function: Callable[[Array], Array]) -> None:
        """Apply `function` to rows (n, *shape); they keep their shape and type."""
        super().__init__(source.shape, source.dtype)
        self.source, self.function = source, function

    def read(self, rows: NDArray[np.int64]) -> Array:
        """Changed rows of the source."""
        return self.function(self.source[rows])


class Recent:
    """The rows read last, so many at most."""

    def __init__(self, capacity: int) -> None:
        """Remember `capacity` rows."""
        self.capacity = capacity
        self._rows: OrderedDict[int, Array] = OrderedDict()

    def get(self, row: int) -> Array | None:
        """A row, if it is still remembered."""
        if row in self._rows:
            self._rows.move_to_end(row)
        return self._rows.get(row)

    def put(self, row: int, value: Array) -> None:
        """Remember a row, and forget the one unused longest."""
        self._rows[row] = value
        self._rows.move_to_end(row)
        if len(self._rows) > self.capacity:
            self._rows.popitem(last=False)


def as_array(array: LazyArray) -> Array:
    """The same object under the type of the arrays whose place it takes."""
    return cast(Array, array)


def is_lazy(array: Array) -> bool:
    """Whether an array of `Episodes` is not in memory."""
    return isinstance(array, LazyArray)


def take(array: Array, rows: NDArray[np.int64]) -> Array:
    """A copy of these rows (n,); of a lazy array a lazy one."""
    if isinstance(array, LazyArray):
        return as_array(Taken(array, rows))
    return np.ascontiguousarray(array[rows])


def join(arrays: Sequence[Array]) -> Array:
    """Arrays end to end; lazy if one of them is."""
    if any(isinstance(array, LazyArray) for array in arrays):
        return as_array(Joined(arrays))
    return np.concatenate(arrays)


def map_rows(array: Array, function: Callable[[Array], Array]) -> Array:
    """Every row changed by a function of rows (n, *shape) that keeps their shape and type."""
    if isinstance(array, LazyArray):
        return as_array(Mapped(array, function))
    return np.ascontiguousarray(function(array))


def save_array(path: Path, array: Array) -> None:
    """Write a `.npy` file, of a lazy array block by block."""
    if not isinstance(array, LazyArray):
        np.save(path, array)
        return
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=array.shape)
    for rows in blocks(array):
        stored[rows] = array[rows]
    stored.flush()


def same(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same numbers or text, NaN included; lazy ones are compared block by block."""
    if is_lazy(a) or is_lazy(b):
        return a.shape == b.shape and all(np.array_equal(a[rows], b[rows]) for rows in blocks(a))
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def blocks(array: Array | LazyArray) -> list[slice]:
    """Slices that cover all rows, each small enough to hold."""
    size = max(1, _BLOCK_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
    return [slice(start, min(start + size, len(array))) for start in range(0, len(array), size)]
