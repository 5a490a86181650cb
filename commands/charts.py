"""Charts as inline SVG: sharp at any size, a few kilobytes, coloured by the page's own style sheet.

Every function returns the text of one `<svg>` element that needs nothing outside the page. Class names (`line-0`,
`axis`, `bar`, ...) are coloured in `page.css`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 250  # of the drawing, in its own units; the page scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 38


@dataclass(frozen=True)
class Series:
    """One named line; points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Row:
    """One named estimate with its interval, all in [0, 1]."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""
    highlight: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or above `low` to at or below `high`, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A short label: 1.23M, 20k, 0.05, 3e-5."""
    if value == 0:
        return "0"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class _Axis:
    """Maps values to positions, linearly or in the logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = (math.log10(n) if self.log else n for n in (self.low, self.high, value))
        share = (v - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)

    def marks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1,) if last - first > 3 else (1, 2, 5)
        inside = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        return [v for v in inside if self.low * 0.999 <= v <= self.high * 1.001]


def lines(
    series: Sequence[Series], *, x_label: str, y_label: str = "", log: bool = False, height: int = HEIGHT
) -> str:
    """Curves over a common x; on a logarithmic y only positive values are drawn."""
    clean = [Series(s.name, *_finite(s, positive=log)) for s in series]
    clean = [s for s in clean if len(s.x)]
    if not clean:
        return "<p class='empty'>nothing recorded</p>"
    xs, ys = [v for s in clean for v in s.x], [v for s in clean for v in s.y]
    low, high = (min(ys), max(ys)) if log else _padded(min(ys), max(ys))
    if log and low == high:
        low, high = low / 2, high * 2
    x = _Axis(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y = _Axis(low, high, height - _BOTTOM, _TOP, log)
    body = [_frame(x, y, height, x_label, y_label)]
    for i, s in enumerate(clean):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(s.x, s.y, strict=True))
        if len(s.x) == 1:
            body.append(f"<circle class='dot-{i}' cx='{x(s.x[0]):.1f}' cy='{y(s.y[0]):.1f}' r='3'/>")
        body.append(f"<polyline class='line-{i}' points='{points}'/>")
    if len(clean) > 1:
        body.append(_legend([s.name for s in clean]))
    return _svg(body, height, f"{', '.join(s.name for s in clean)} over {x_label}")


def intervals(rows: Sequence[Row], *, x_label: str) -> str:
    """One row per estimate: a dot, its 95 % interval, and the numbers to the right."""
    left, right, step = 146, 132, 34
    height = _TOP + step * len(rows) + _BOTTOM
    x = _Axis(0.0, 1.0, left, WIDTH - right)
    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(_line(x(share), 10, x(share), height - _BOTTOM, "grid"))
        body.append(_text(x(share), height - _BOTTOM + 16, f"{100 * share:.0f}", "tick", "middle"))
    body.append(_text(x(0.5), height - 4, x_label, "label", "middle"))
    for i, row in enumerate(rows):
        mid = _TOP + step * (i + 0.5) - 8
        kind = "own" if row.highlight else "other"
        low, high = max(0.0, row.low), min(1.0, row.high)
        body.append(_text(left - 14, mid + 5, row.name, f"name {kind}", "end"))
        body.append(
            f"<rect class='range {kind}' x='{x(low):.1f}' y='{mid - 6:.1f}' "
            f"width='{max(1.0, x(high) - x(low)):.1f}' height='12' rx='6'/>"
        )
        body.append(f"<circle class='point {kind}' cx='{x(row.value):.1f}' cy='{mid:.1f}' r='6'/>")
        body.append(_text(WIDTH - right + 16, mid + 5, row.note, f"note {kind}", "start"))
    return _svg(body, height, x_label)


def histogram(
    values: Sequence[float], *, x_label: str, mark: tuple[float, str] | None = None, bins: int = 30
) -> str:
    """Counts of `values`; `mark` draws a labelled upright line, such as a deadline, if it is near the data."""
    data = sorted(v for v in values if math.isfinite(v))
    if not data:
        return "<p class='empty'>nothing recorded</p>"
    shown = mark if mark and data[0] * 0.2 <= mark[0] <= data[-1] * 4 else None
    high = max(data[-1], shown[0] * 1.05 if shown else 0.0)
    low = max(0.0, data[0] - 0.1 * (high - data[0]))
    if high <= low:
        low, high = low * 0.9, high * 1.1 + 1e-9
    counts = [0] * bins
    for v in data:
        counts[min(bins - 1, int((v - low) / (high - low) * bins))] += 1
    height = HEIGHT - 60
    x = _Axis(low, high, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0.0, max(counts) * 1.1, height - _BOTTOM, _TOP)
    body = [_frame(x, y, height, x_label, "" if shown else "calls")]
    step = (WIDTH - _RIGHT - _LEFT) / bins
    for i, count in enumerate(counts):
        if count:
            top = y(count)
            body.append(
                f"<rect class='bar' x='{_LEFT + i * step + 0.5:.1f}' y='{top:.1f}' "
                f"width='{step - 1:.1f}' height='{height - _BOTTOM - top:.1f}'/>"
            )
    if shown:
        at = x(shown[0])
        body.append(_line(at, _TOP - 6, at, height - _BOTTOM, "mark"))
        anchor = "end" if at > WIDTH / 2 else "start"
        body.append(_text(at + (-6 if anchor == "end" else 6), 14, shown[1], "mark-label", anchor))
    return _svg(body, height, x_label)


def strip(scores: Sequence[float], successes: Sequence[bool], labels: Sequence[str]) -> str:
    """One upright bar per episode, in the order given; a tooltip names each."""
    height, gap = HEIGHT - 60, 1.0
    wide = (WIDTH - _LEFT - _RIGHT) / max(len(scores), 1)
    y = _Axis(0.0, 1.0, height - 26, 14)
    body = [
        _line(_LEFT, y(1.0), WIDTH - _RIGHT, y(1.0), "grid"),
        _line(_LEFT, y(0), WIDTH - _RIGHT, y(0), "axis"),
    ]
    for value in (0.0, 0.5, 1.0):
        body.append(_text(_LEFT - 8, y(value) + 4, number(value), "tick", "end"))
    for i, (score, success, label) in enumerate(zip(scores, successes, labels, strict=True)):
        top = y(min(1.0, max(0.0, score)))
        body.append(
            f"<rect class='{'good' if success else 'bad'}' x='{_LEFT + i * wide + gap / 2:.2f}' y='{top:.1f}' "
            f"width='{max(0.8, wide - gap):.2f}' height='{max(1.0, y(0) - top):.1f}'>"
            f"<title>{escape(label)}</title></rect>"
        )
    body.append(
        _text(
            (_LEFT + WIDTH - _RIGHT) / 2, height - 4, "episodes, in order of their seeds", "label", "middle"
        )
    )
    return _svg(body, height, "score of every episode")


def _finite(series: Series, *, positive: bool) -> tuple[list[float], list[float]]:
    pairs = [
        (a, b)
        for a, b in zip(series.x, series.y, strict=True)
        if math.isfinite(b) and (b > 0 or not positive)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low < 0.5 * high else low - pad), high + pad


def _frame(x: _Axis, y: _Axis, height: int, x_label: str, y_label: str) -> str:
    parts = []
    for value in y.marks():
        parts.append(_line(_LEFT, y(value), WIDTH - _RIGHT, y(value), "grid"))
        parts.append(_text(_LEFT - 8, y(value) + 4, number(value), "tick", "end"))
    for value in x.marks():
        parts.append(_text(x(value), height - _BOTTOM + 16, number(value), "tick", "middle"))
    parts.append(_line(_LEFT, height - _BOTTOM, WIDTH - _RIGHT, height - _BOTTOM, "axis"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 4, x_label, "label", "middle"))
    parts.append(_text(8, 14, y_label, "label", "start"))
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    parts, at = [], float(WIDTH - _RIGHT)
    for i, name in reversed(list(enumerate(names))):
        at -= 7.2 * len(name)
        parts.append(_text(at, 14, name, "label", "start"))
        parts.append(f"<line class='line-{i}' x1='{at - 22:.1f}' y1='10' x2='{at - 6:.1f}' y2='10'/>")
        at -= 40
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f"<line class='{kind}' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'/>"


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f"<text class='{kind}' x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(text)}</text>"


def _svg(body: Sequence[str], height: float, title: str) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{escape(title, quote=True)}'>"
        f"{''.join(body)}</svg>"
    )
