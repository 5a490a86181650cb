"""Columns of Parquet tables as NumPy arrays, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes import Array
from ..errors import DataError
from .opening import require


def read_columns(path: Path, names: Sequence[str] | None = None) -> Any:
    """A table with these columns, or all."""
    parquet = require("pyarrow.parquet", "reading LeRobot datasets")
    if not path.exists():
        raise DataError(f"{path} is absent; copy the dataset again")
    try:
        present = set(parquet.read_schema(path).names)
        if missing := sorted(set(names or ()) - present):
            raise DataError(f"{path} has no column {missing[0]!r}; it holds {sorted(present)}")
        return parquet.ParquetFile(path).read(columns=None if names is None else list(names))
    except (OSError, require("pyarrow", "reading LeRobot datasets").ArrowException) as error:
        raise DataError(f"{path} is not readable ({error}); it may be cut short: copy it again") from error


def to_array(column: Any, name: str, shape: Sequence[int]) -> Array:
    """One column as (N, *shape); a scalar column as (N,)."""
    pa = require("pyarrow", "reading LeRobot datasets")
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    steps = len(values)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(is_list(values.type) for is_list in lists):
        if values.null_count:
            raise DataError(
                f"column {name!r} has {values.null_count} empty rows; repair or drop those episodes"
            )
        values = values.flatten()
    if values.null_count:
        raise DataError(
            f"column {name!r} has {values.null_count} empty values; repair or drop those episodes"
        )
    array = values.to_numpy(zero_copy_only=False)
    if len(array) == steps and tuple(shape) == (1,):
        return array
    size = int(np.prod(shape))
    if len(array) != steps * size:
        raise DataError(
            f"column {name!r} has {len(array)} values in {steps} rows, its shape is {list(shape)}"
        )
    return array.reshape(steps, *shape)


def from_array(array: Array) -> Any:
    """A column from (N,) or (N, ...): scalars where a step holds one number, lists elsewhere."""
    pa = require("pyarrow", "writing LeRobot datasets")
    column = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:] if array[0].size > 1 else ()):
        column = pa.FixedSizeListArray.from_arrays(column, int(size))
    return column
