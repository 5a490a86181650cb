"""Charts: marks stand where the numbers say."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from sensorimotor.commands import charts
from sensorimotor.commands.charts import Row, Series


def parts(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(tag))


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 10_000, [0, 2000, 4000, 6000, 8000, 10_000]),
        (3, 17, [5, 10, 15]),
        (-0.5, 0.5, [-0.4, -0.2, 0, 0.2, 0.4]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, wanted: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (3e-5, "3e-5"),
        (2000, "2k"),
        (12_345, "12.3k"),
        (1_234_567, "1.23M"),
        (-2, "-2"),
    ],
)
def test_labels_are_short(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_a_line_goes_through_its_points_in_order() -> None:
    svg = charts.lines([Series("loss", [0, 1, 2], [3.0, 2.0, 1.0])], x_label="updates")
    (line,) = parts(svg, "polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    falls = [b - a for (_, a), (_, b) in pairwise(points)]
    assert falls[0] == pytest.approx(falls[1], abs=0.11)  # equal steps in the data, equal steps on the page
    assert falls[0] > 0  # downwards


def test_a_logarithmic_axis_gives_equal_ratios_equal_steps() -> None:
    svg = charts.lines([Series("loss", [0, 1, 2], [100.0, 10.0, 1.0])], x_label="updates", log=True)
    (line,) = parts(svg, "polyline")
    y = [float(p.split(",")[1]) for p in line.get("points", "").split()]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.11)


@pytest.mark.parametrize("log", [False, True])
def test_numbers_that_cannot_be_drawn_are_left_out(log: bool) -> None:
    series = Series("loss", [0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0])
    (line,) = parts(charts.lines([series], x_label="updates", log=log), "polyline")
    assert len(line.get("points", "").split()) == 2
    assert "nothing" in charts.lines([Series("loss", [0], [math.nan])], x_label="updates", log=log)


def test_constant_and_single_values_are_drawn() -> None:
    for y in ([2.0], [2.0, 2.0], [0.0, 0.0]):
        svg = charts.lines([Series("a", list(range(len(y))), y)], x_label="x")
        assert "nan" not in svg
        assert len(parts(svg, "polyline")) == 1


def test_intervals_span_from_low_to_high_on_a_scale_of_one() -> None:
    svg = charts.intervals([Row("all", 0.5, 0.0, 1.0), Row("half", 0.25, 0.0, 0.5)], x_label="success")
    widths = [float(rect.get("width", 0)) for rect in parts(svg, "rect")]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=0.1)
    middle, quarter = (float(c.get("cx", 0)) for c in parts(svg, "circle"))
    left = float(parts(svg, "rect")[0].get("x", 0))
    assert middle - left == pytest.approx(2 * (quarter - left), abs=0.2)


def test_a_histogram_counts_every_value_once() -> None:
    values = [1.0] * 7 + [2.0] * 3
    svg = charts.histogram(values, x_label="ms", bins=5)
    heights = [float(rect.get("height", 0)) for rect in parts(svg, "rect")]
    assert len(heights) == 2
    assert heights[0] / heights[1] == pytest.approx(7 / 3, rel=0.01)


@pytest.mark.parametrize(("deadline", "shown"), [(3.0, True), (100.0, False)])
def test_a_deadline_is_drawn_where_it_is_near_the_data(deadline: float, shown: bool) -> None:
    svg = charts.histogram([1.0, 2.0], x_label="ms", mark=(deadline, "control period"))
    assert ("control period" in svg) == shown


def test_a_strip_has_a_bar_per_episode_and_names_it() -> None:
    svg = charts.strip([1.0, 0.5, 2.0], [True, False, True], ["start 1", "start 2 <b>", "start 3"])
    bars = parts(svg, "rect")
    assert [bar.get("class") for bar in bars] == ["good", "bad", "good"]
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[2] == heights[0]  # a score never leaves the drawing
    assert bars[1][0].text == "start 2 <b>"


def test_names_are_escaped() -> None:
    svg = charts.lines([Series("<script>", [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])], x_label="a & b")
    assert "<script>" not in svg
    assert re.search("a &amp; b", svg)
