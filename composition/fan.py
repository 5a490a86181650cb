"""A picture of candidates: the chunks that policies propose for one observation, side by side.

Where actions are two numbers they are drawn in their plane, else every number over time. Chunks are coloured by value
where there are values; the one that would be executed is drawn on top.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.errors import ConfigError
from ..data.files import atomic_file
from ..data.plots import tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

_INK, _SCENE, _CHOSEN = "#2f6db3", "#c9ced6", "#1b1f24"
_MOST = 6  # numbers of an action that are drawn over time


@dataclass(frozen=True)
class Fan:
    """Candidates of one policy.

    Attributes:
        chunks: (K, H, A), physical units.
        values: (K,), or None.
        chosen: the one that would be executed, or None.
    """

    chunks: Tensor
    values: Tensor | None = None
    chosen: int | None = None

    def __post_init__(self) -> None:
        count = len(self.chunks)
        if self.chunks.ndim != 3 or (self.values is not None and self.values.shape != (count,)):
            given = None if self.values is None else tuple(self.values.shape)
            raise ConfigError(
                f"a fan needs chunks (K, H, A) and values (K,), got {tuple(self.chunks.shape)} and {given}"
            )
        if self.chosen is not None and not 0 <= self.chosen < count:
            raise ConfigError(f"chosen must be one of {count} candidates, got {self.chosen}")


def candidate_fan(
    fans: Mapping[str, Fan],
    path: Path | str,
    *,
    scene: Sequence[Array] = (),
    start: Array | None = None,
    unit: str = "",
) -> None:
    """Draw one panel per policy as a PNG.

    Args:
        fans: by the title of their panel.
        path: the PNG to write.
        scene: closed outlines (P, 2) in the plane of the action, drawn behind the chunks.
        start: (2,) where the robot is.
        unit: of the action, for the axes.

    Raises:
        ConfigError: without a fan, or where their actions differ in width.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths = {fan.chunks.shape[-1] for fan in fans.values()}
    if len(widths) != 1:
        raise ConfigError(f"fans of one picture need actions of one width, got {sorted(widths)}")
    width = widths.pop()
    rows = 1 if width == 2 else min(width, _MOST)
    figure = Figure(figsize=(3.5 * len(fans) + 0.6, 3.8 if width == 2 else 1.5 * rows + 0.6), dpi=120)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, len(fans), squeeze=False, sharex=True, sharey="row")
    shade = _shades(fans)
    for column, (title, fan) in enumerate(fans.items()):
        axes[0][column].set_title(title, fontsize=9.5, loc="left")
        if width == 2:
            _plane(axes[0][column], fan, shade, scene, start, unit)
        else:
            for row in range(rows):
                _over_time(axes[row][column], fan, row, shade, first=column == 0, unit=unit)
            axes[-1][column].set_xlabel("action of the chunk", fontsize=8)
    if shade is not None:
        bar = figure.colorbar(shade, ax=axes[:, -1], shrink=0.85, pad=0.02)
        bar.set_label("value", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _shades(fans: Mapping[str, Fan]) -> Any:
    """One scale of colours for all values, or None where there are none."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    found = [fan.values.numpy(force=True) for fan in fans.values() if fan.values is not None]
    if not found:
        return None
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return ScalarMappable(Normalize(low, high), "viridis")


def _color(fan: Fan, number: int, shade: Any) -> Any:
    return _INK if fan.values is None or shade is None else shade.to_rgba(float(fan.values[number]))


def _plane(
    axis: "Axes", fan: Fan, shade: Any, scene: Sequence[Array], start: Array | None, unit: str
) -> None:
    for outline in scene:
        axis.fill(*np.asarray(outline).T, facecolor="#eef0f3", edgecolor=_SCENE, linewidth=1.2)
    for number, chunk in enumerate(fan.chunks.numpy(force=True)):
        axis.plot(*chunk.T, color=_color(fan, number, shade), linewidth=1.0, alpha=0.75)
    if fan.chosen is not None:
        chunk = fan.chunks[fan.chosen].numpy(force=True)
        axis.plot(*chunk.T, color=_CHOSEN, linewidth=2.4)
        axis.plot(*chunk[-1], "o", color=_CHOSEN, markersize=5, markeredgecolor="white")
    if start is not None:
        axis.plot(*start, "o", color=_CHOSEN, markersize=7, markerfacecolor="white", markeredgewidth=1.5)
    axis.set_aspect("equal", adjustable="box")
    if unit:
        axis.set_xlabel(unit, fontsize=8)
    tidy(axis)


def _over_time(axis: "Axes", fan: Fan, row: int, shade: Any, *, first: bool, unit: str) -> None:
    for number, chunk in enumerate(fan.chunks.numpy(force=True)):
        axis.plot(chunk[:, row], color=_color(fan, number, shade), linewidth=1.0, alpha=0.75)
    if fan.chosen is not None:
        axis.plot(fan.chunks[fan.chosen].numpy(force=True)[:, row], color=_CHOSEN, linewidth=2.2)
    if first:
        axis.set_ylabel(f"[{row}]" + (f" ({unit})" if unit else ""), fontsize=8)
    tidy(axis)
