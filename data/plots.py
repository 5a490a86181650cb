"""A picture of recorded episodes: every number over time, and actions in the plane where they are two."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .episodes import Array, Episodes
from .errors import DataError
from .files import atomic_file
from .spec import Field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ELEMENTS = 64  # wider fields, such as images, are not looked at element by element
_COLORS = ("#2f6db3", "#e0841e", "#2f9e62", "#b8437a", "#7059ad")
_COLUMNS = 4


def element_labels(field: Field) -> tuple[str, ...]:
    """A label per element of one step: its name, or its index in brackets."""
    if len(field.names) == field.size:
        return field.names
    return tuple(str(list(index)) for index in np.ndindex(*field.shape))


def plot_trajectories(episodes: Episodes, path: Path | str, *, count: int = 4, elements: int = 8) -> None:
    """Draw a few episodes as a PNG.

    Args:
        episodes: what to draw; images, text and extra arrays are left out.
        path: the PNG to write.
        count: episodes to draw, spread evenly over the set; at most 5.
        elements: how many elements of each key to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not 1 <= count <= len(_COLORS) or elements < 1:
        raise DataError(
            f"count must lie in 1..{len(_COLORS)} and elements above 0, got {count} and {elements}"
        )
    chosen = np.unique(np.linspace(0, len(episodes) - 1, count).round().astype(int))
    fields = {"action": episodes.spec.action, **episodes.spec.observation}
    fields = {k: field for k, field in fields.items() if field.size <= MOST_ELEMENTS and not field.is_text}
    panels = [(key, i) for key, field in fields.items() for i in range(min(field.size, elements))]
    rows = -(-len(panels) // _COLUMNS)
    plane = episodes.spec.action_dim == 2
    figure = Figure(figsize=(15.5 if plane else 11.5, max(1.7 * rows + 1.0, 5.2 if plane else 0)), dpi=110)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    grid: Any = figure
    if plane:
        left, grid = list(np.asarray(figure.subfigures(1, 2, width_ratios=(4.6, 10.9))).flat)
        _draw_plane(left.add_subplot(), episodes, chosen)
    axes = grid.subplots(rows, _COLUMNS, squeeze=False, sharex=True)
    for axis, (key, element) in zip(axes.flat, panels, strict=False):
        _draw_element(axis, episodes, chosen, key, fields[key], element)
    for number, axis in enumerate(axes.flat):
        axis.set_visible(number < len(panels))
        if number + _COLUMNS >= len(panels):  # nothing below
            axis.set_xlabel("time (s)", fontsize=8)
            axis.tick_params(labelbottom=True)
    figure.suptitle(_title(episodes, fields, elements), fontsize=11)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _title(episodes: Episodes, fields: dict[str, Field], elements: int) -> str:
    cut = [f"{key} {elements} of {field.size}" for key, field in fields.items() if field.size > elements]
    head = f"{len(episodes)} episodes, {episodes.steps:,} steps at {episodes.spec.control_hz:g} Hz"
    return f"{head}; shown: {', '.join(cut)}" if cut else head


def _unit(field: Field) -> str:
    return f" ({field.unit})" if field.unit not in ("", "1") else ""


def _rows(episodes: Episodes, array: Array, episode: int) -> Array:
    return np.asarray(array[episodes.starts[episode] : episodes.ends[episode]])


def _draw_element(
    axis: "Axes", episodes: Episodes, chosen: Array, key: str, field: Field, element: int
) -> None:
    array = episodes.action if key == "action" else episodes.observation[key]
    for color, episode in zip(_COLORS, chosen, strict=False):
        values = _rows(episodes, array, episode).reshape(-1, field.size)[:, element]
        seconds = np.arange(len(values)) / episodes.spec.control_hz
        axis.plot(seconds, values, color=color, linewidth=1.1, label=f"episode {episode}")
    label = f" {element_labels(field)[element]}" if field.size > 1 else ""
    axis.set_title(f"{key}{label}{_unit(field)}", fontsize=8.5, loc="left")
    tidy(axis)


def _draw_plane(axis: "Axes", episodes: Episodes, chosen: Array) -> None:
    field = episodes.spec.action
    for color, episode in zip(_COLORS, chosen, strict=False):
        path = _rows(episodes, episodes.action, episode)
        axis.plot(path[:, 0], path[:, 1], color=color, linewidth=1.3)
        axis.plot(*path[0], "o", color=color, markersize=6, markeredgecolor="white")
        axis.plot(*path[-1], "s", color=color, markersize=6, markeredgecolor="white")
    axis.set_title("action in the plane (circle: first, square: last)", fontsize=8.5, loc="left")
    x, y = element_labels(field)
    axis.set_xlabel(f"action {x}{_unit(field)}", fontsize=8)
    axis.set_ylabel(f"action {y}{_unit(field)}", fontsize=8)
    axis.set_aspect("equal", adjustable="box", anchor="N")
    axis.margins(0.08)
    tidy(axis)


def tidy(axis: "Axes") -> None:
    """Small ticks, a faint grid, no frame."""
    axis.tick_params(labelsize=7, length=2)
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#b0b0b0")
