"""The statistics LeRobot keeps per episode and per dataset: moments, extremes and quantiles of every column."""

from collections.abc import Mapping

import numpy as np

from ..episodes import Array

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_FRAMES = 100  # of each episode, for image statistics
Statistics = dict[str, Array]


def column_statistics(array: Array) -> Statistics:
    """Per element of the last axis of (N, ...), over steps and any axes between; a scalar column has one element."""
    steps = len(array)
    array = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    x = array.astype(np.float64)
    ends = x if array.dtype == np.uint64 else array  # Parquet's lists of Python numbers are signed
    with np.errstate(invalid="ignore"):  # data that is not finite has statistics that are not
        quantiles = np.quantile(x, list(_QUANTILES.values()), axis=0)
        return {
            "min": ends.min(axis=0),
            "max": ends.max(axis=0),
            "mean": x.mean(axis=0),
            "std": x.std(axis=0),
            "count": np.array([steps]),
            **dict(zip(_QUANTILES, quantiles, strict=True)),
        }


def image_statistics(images: Array) -> Statistics:
    """Per channel of (N, H, W, 3), as (3, 1, 1) in 0..1, over evenly chosen frames and every fourth pixel or so."""
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), _FRAMES)).round().astype(int)]
    stride = max(1, min(images.shape[1:3]) // 100)
    pixels = chosen[:, ::stride, ::stride].reshape(-1, images.shape[-1]) / 255.0
    return {
        name: np.array([len(chosen)]) if name == "count" else value.reshape(-1, 1, 1)
        for name, value in column_statistics(pixels).items()
    }


def merge(parts: list[Statistics]) -> Statistics:
    """Statistics of several episodes together; quantiles are averaged, as LeRobot does."""
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> Array:
        return np.tensordot(weights, np.stack([part[name] for part in parts]), axes=1)

    centre = mean("mean")
    with np.errstate(invalid="ignore"):
        spread = np.stack([part["std"] ** 2 + (part["mean"] - centre) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": centre,
        "std": np.sqrt(np.tensordot(weights, spread, axes=1)),
        "count": np.array([int(counts.sum())]),
        **{name: mean(name) for name in _QUANTILES},
    }


def plain(statistics: Mapping[str, Array]) -> dict[str, list[object]]:
    """As nested lists of Python numbers."""
    return {name: value.tolist() for name, value in statistics.items()}
