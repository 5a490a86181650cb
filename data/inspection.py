"""A look at a dataset before anything is trained on it: numbers, gaps, rewards, and a picture."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .episodes import Array, Episodes
from .plots import MOST_ELEMENTS, element_labels, plot_trajectories
from .spec import Field

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["KeySummary", "Summary", "plot_trajectories", "summarize", "summary_table"]

_BLOCK_BYTES = 32 << 20  # so much of a memory-mapped array is looked at at a time


@dataclass(frozen=True, kw_only=True)
class KeySummary:
    """One array; the tuples hold an entry per element, or a single one for wide fields such as images.

    Attributes:
        key: observation key, `action`, or `extra.<name>`.
        shape: of one step.
        dtype: numpy name.
        unit: SI symbol or empty.
        names: a label per element; empty if there is a single one.
        minimum: smallest finite value.
        mean: mean of the finite values.
        maximum: largest finite value.
        std: standard deviation of the finite values.
        not_finite: number of NaNs and infinities.
        texts: how many different strings there are; None where there are numbers, whose statistics are then empty.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    names: tuple[str, ...]
    minimum: tuple[float, ...]
    mean: tuple[float, ...]
    maximum: tuple[float, ...]
    std: tuple[float, ...]
    not_finite: int
    texts: int | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A dataset in numbers.

    Attributes:
        episodes: how many.
        steps: in all.
        control_hz: steps per second.
        seconds: recorded time.
        lengths: (shortest, median, longest) episode, in steps.
        keys: one entry per array.
        returns: (lowest, mean, highest) sum of rewards of an episode, or None without rewards.
        terminated: episodes that ended in a terminal state, or None where unknown.
        successes: successful episodes, or None where unknown.
        notes: what the reader of the file had to say.
    """

    episodes: int
    steps: int
    control_hz: float
    seconds: float
    lengths: tuple[int, float, int]
    keys: tuple[KeySummary, ...]
    returns: tuple[float, float, float] | None
    terminated: int | None
    successes: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        return asdict(self)


def summarize(episodes: Episodes) -> Summary:
    """Go through every array once, block by block, so that a memory-mapped set of any size will do."""
    spec = episodes.spec
    described = {**spec.observation, "action": spec.action}
    arrays = {**episodes.observation, "action": episodes.action}
    keys = [_summarize_key(key, array, described[key]) for key, array in arrays.items()]
    for key, array in episodes.extra.items():
        keys.append(
            _summarize_key(f"extra.{key}", array, Field(shape=array.shape[1:], dtype=array.dtype.name))
        )
    returns = terminated = None
    if episodes.reward is not None:
        sums = np.add.reduceat(episodes.reward.astype(np.float64), episodes.starts)
        returns = (float(sums.min()), float(sums.mean()), float(sums.max()))
    if episodes.terminated is not None:
        terminated = int(np.logical_or.reduceat(episodes.terminated, episodes.starts).sum())
    lengths = episodes.lengths
    return Summary(
        episodes=len(episodes),
        steps=episodes.steps,
        control_hz=spec.control_hz,
        seconds=episodes.steps / spec.control_hz,
        lengths=(int(lengths.min()), float(np.median(lengths)), int(lengths.max())),
        keys=tuple(keys),
        returns=returns,
        terminated=terminated,
        successes=None if episodes.success is None else int(episodes.success.sum()),
        notes=tuple(episodes.metadata.get("notes", ())),
    )


def _summarize_key(key: str, array: Array, field: Field) -> KeySummary:
    if array.dtype.kind == "U":
        return _summarize_text(key, array)
    width = field.size if field.size <= MOST_ELEMENTS else 1
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    count, mean, squares, bad = np.zeros(width), np.zeros(width), np.zeros(width), 0
    for block in _blocks(array, width):
        finite = np.isfinite(block)
        bad += int((~finite).sum())
        n = finite.sum(axis=0)
        with np.errstate(invalid="ignore"):
            low = np.minimum(low, np.where(finite, block, np.inf).min(axis=0))
            high = np.maximum(high, np.where(finite, block, -np.inf).max(axis=0))
            centre = np.where(finite, block, 0.0).sum(axis=0) / np.maximum(n, 1)
            spread = (np.where(finite, block - centre, 0.0) ** 2).sum(axis=0)
        # Pairwise update of mean and squared deviation: Chan, Golub and LeVeque (1983).
        total = np.maximum(count + n, 1)
        squares += spread + (centre - mean) ** 2 * count * n / total
        mean, count = mean + (centre - mean) * n / total, count + n
    mean = np.where(count > 0, mean, np.nan)
    std = np.sqrt(squares / np.where(count > 0, count, np.nan))
    low, high = np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)
    return KeySummary(
        key=key,
        shape=tuple(field.shape),
        dtype=field.dtype,
        unit=field.unit,
        names=element_labels(field) if width > 1 else (),
        minimum=tuple(low.tolist()),
        mean=tuple(mean.tolist()),
        maximum=tuple(high.tolist()),
        std=tuple(std.tolist()),
        not_finite=bad,
    )


def _summarize_text(key: str, array: Array) -> KeySummary:
    return KeySummary(
        key=key,
        shape=array.shape[1:],
        dtype="str",
        unit="",
        names=(),
        minimum=(),
        mean=(),
        maximum=(),
        std=(),
        not_finite=0,
        texts=len(np.unique(array)),
    )


def _blocks(array: Array, width: int) -> Iterator[Array]:
    rows = max(1, _BLOCK_BYTES // (8 * max(1, array[:1].size)))
    for start in range(0, len(array), rows):
        yield array[start : start + rows].astype(np.float64).reshape(-1, width)


def summary_table(summary: Summary) -> "Group":
    """Head lines and a table with a row per element, for a rich console."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shortest, median, longest = summary.lengths
    head = (
        f"{summary.episodes} episodes, {summary.steps:,} steps at {summary.control_hz:g} Hz "
        f"({_duration(summary.seconds)}); {shortest} to {longest} steps each, median {median:g}"
    )
    lines = [Text(head, style="bold")]
    if summary.returns is not None:
        lines.append(
            Text("return per episode: {:.4g} to {:.4g}, mean {:.4g}".format(*_spread(summary.returns)))
        )
    if summary.successes is not None:
        share = summary.successes / summary.episodes
        lines.append(Text(f"success: {summary.successes} of {summary.episodes} ({share:.1%})"))
    if summary.terminated is not None:
        lines.append(Text(f"ended in a terminal state: {summary.terminated} of {summary.episodes}"))
    table = Table(header_style="bold", pad_edge=False)
    for column in ("key", "shape", "type", "unit"):
        table.add_column(column, no_wrap=True)
    for column in ("min", "mean", "max", "std", "not finite"):
        table.add_column(column, justify="right", no_wrap=True)
    for key in summary.keys:
        _add_rows(table, key)
    notes = [Text(f"note: {message}", style="yellow") for message in summary.notes]
    return Group(*lines, table, *notes)


def _spread(values: tuple[float, float, float]) -> tuple[float, float, float]:
    return values[0], values[2], values[1]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _add_rows(table: "Table", key: KeySummary) -> None:
    from rich.text import Text

    columns = list(zip(key.minimum, key.mean, key.maximum, key.std, strict=True))
    shape = " x ".join(map(str, key.shape)) or "1"
    bad = Text(str(key.not_finite), style="red" if key.not_finite else "")
    first = [Text(key.key), shape, key.dtype, Text(key.unit)]
    if key.texts is not None:
        table.add_row(*first, f"{key.texts} different", "", "", "", "", end_section=True)
        return
    if len(columns) == 1:
        table.add_row(*first, *(f"{v:.4g}" for v in columns[0]), bad, end_section=True)
        return
    table.add_row(*first, "", "", "", "", bad)
    for i, values in enumerate(columns):
        name = Text(f"  {key.names[i]}")  # as it is: brackets are no markup here
        last = i == len(columns) - 1
        table.add_row(name, "", "", "", *(f"{v:.4g}" for v in values), "", end_section=last)
