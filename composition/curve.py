"""A picture of a weight search: what every candidate did in the selection, and what the chosen one did afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.errors import ConfigError
from ..data.files import atomic_file
from ..data.intervals import Interval
from ..data.plots import tidy
from .selection import SelectionReport
from .trials import Weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OTHER, _OWN, _FRESH, _PARENT = "#8a94a0", "#2f6db3", "#2f9e62", "#e0841e"


def weight_curve(
    report: SelectionReport, names: Sequence[str], path: Path | str, *, value: str = "success"
) -> None:
    """Draw a search as a PNG: two members along their weight, more of them from worst to best.

    Args:
        report: what was found.
        names: of the members.
        path: the PNG to write.
        value: what was compared, for the axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(names) != len(report.choice.weights):
        raise ConfigError(f"{len(names)} names for {len(report.choice.weights)} members; give one for each")
    figure = Figure(figsize=(9.2, 4.2), dpi=120)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1.2))
    if len(names) == 2:
        _along_the_weight(left, report, names)
    else:
        _from_worst_to_best(left, report, names)
    left.set_ylabel(value, fontsize=9)
    left.set_title(
        f"selection: {report.choice.counts[0]:,} starts per candidate"
        if len(set(report.choice.counts)) == 1
        else f"selection: {min(report.choice.counts):,} to {max(report.choice.counts):,} starts per candidate",
        fontsize=9.5,
        loc="left",
    )
    _reported(right, report, names)
    for axis in (left, right):
        tidy(axis)
        if value == "success":
            formatter: Any = lambda v, _: f"{100 * v:.0f} %"  # noqa: E731
            axis.yaxis.set_major_formatter(formatter)
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _along_the_weight(axis: "Axes", report: SelectionReport, names: Sequence[str]) -> None:
    curve = sorted(report.curve, key=lambda row: row[0][0])
    places = [weights[0] for weights, _ in curve]
    axis.fill_between(
        places, [i.low for _, i in curve], [i.high for _, i in curve], color=_OWN, alpha=0.13, linewidth=0
    )
    axis.plot(places, [i.value for _, i in curve], color=_OWN, linewidth=1.5, marker="o", markersize=4)
    judged = dict(report.curve)[report.choice.weights]
    _mark_optimism(axis, report.choice.weights[0], judged, report.optimism)
    axis.set_xlabel(f"weight of {names[0]}; the rest is {names[1]}", fontsize=9)


def _from_worst_to_best(axis: "Axes", report: SelectionReport, names: Sequence[str]) -> None:
    curve = sorted(report.curve, key=lambda row: row[1].value)
    for place, (weights, interval) in enumerate(curve):
        lone = max(weights) == 1.0
        _bar(axis, place, interval, _PARENT if lone else _OWN)
        if weights == report.choice.weights:
            _mark_optimism(axis, place, interval, report.optimism)
    axis.set_xticks(range(len(curve)), [_written(weights, names) for weights, _ in curve], rotation=90)
    axis.set_xlabel("weights of " + ", ".join(names) + ", from worst to best", fontsize=9)


def _mark_optimism(axis: "Axes", place: float, judged: Interval, optimism: float) -> None:
    """An arrow from what was chosen to where it is to be expected."""
    axis.plot([place], [judged.value], "o", color=_OWN, markersize=9, markeredgecolor="white", zorder=3)
    if optimism > 0:
        axis.annotate(
            "",
            xy=(place, judged.value - optimism),
            xytext=(place, judged.value),
            arrowprops={"arrowstyle": "-|>", "color": "#1b1f24", "linewidth": 1.1},
            zorder=4,
        )
        axis.annotate(
            "chosen; expected here",
            (place, judged.value - optimism),
            textcoords="offset points",
            xytext=(-7, -9),
            fontsize=7.5,
            horizontalalignment="right",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
            zorder=4,
        )


def _reported(axis: "Axes", report: SelectionReport, names: Sequence[str]) -> None:
    lone = names[report.parent.index(1.0)]
    rows: list[tuple[str, Interval, str]] = [(f"{lone}\nalone", report.parent_value, _PARENT)]
    if report.choice.weights != report.parent:
        rows.append((f"chosen\n{_written(report.choice.weights, names)}", report.chosen_value, _FRESH))
    for place, (_, interval, color) in enumerate(rows):
        _bar(axis, place, interval, color)
    axis.set_xlim(-0.7, len(rows) - 0.3)
    axis.set_xticks(range(len(rows)), [label for label, _, _ in rows])
    axis.set_title(f"reported: {report.parent_value.count:,} other starts", fontsize=9.5, loc="left")
    if len(rows) == 2:
        gain = report.gain
        axis.set_xlabel(
            f"difference {100 * gain.value:+.1f} points\n[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
            fontsize=9,
        )


def _bar(axis: "Axes", place: float, interval: Interval, color: str) -> None:
    axis.plot(
        [place, place], [interval.low, interval.high], color=color, linewidth=2.2, solid_capstyle="round"
    )
    axis.plot([place], [interval.value], "o", color=color, markersize=6, markeredgecolor="white")


def _written(weights: Weights, names: Sequence[str]) -> str:
    if max(weights) == 1.0:
        return names[weights.index(1.0)]
    return " / ".join(f"{w:.2g}" for w in weights)
