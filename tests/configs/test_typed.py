"""Plain trees and typed configurations: there and back, and what does not fit."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from sensorimotor.configs.typed import alternatives, build, kind_name, plain
from sensorimotor.data.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Round:
    """One shape."""

    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ConfigError(f"radius must be positive, got {self.radius}")


@dataclass(frozen=True, kw_only=True)
class SquareConfig:
    """Another."""

    sides: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """All kinds of fields."""

    title: str
    shape: Round | SquareConfig = field(default_factory=Round)
    frame: Round | None = None
    count: int = 1
    mode: Literal["fill", "line"] = "fill"
    widths: tuple[int, ...] = (1, 2)
    limit: float | None = None


EXAMPLES = [
    Drawing(title="a"),
    Drawing(title="b", shape=SquareConfig(sides=(3.0, 4.0)), frame=Round(radius=2.0), limit=0.5),
    Drawing(title="c", widths=(), mode="line", count=-3),
]


@pytest.mark.parametrize("config", EXAMPLES)
def test_there_and_back(config: Drawing) -> None:
    assert build(Drawing, plain(config)) == config


def test_a_kind_is_written_only_where_there_is_a_choice() -> None:
    values = plain(EXAMPLES[1])
    assert "kind" not in values
    assert values["shape"]["kind"] == "SquareConfig"
    assert "kind" not in values["frame"]


def test_an_alternative_may_be_given_by_its_name_alone() -> None:
    assert build(Drawing, {"title": "a", "shape": "square"}) == Drawing(title="a", shape=SquareConfig())
    with pytest.raises(ConfigError, match=r"shape must be the keys of Round .* got 'squares'"):
        build(Drawing, {"title": "a", "shape": "squares"})


def test_a_class_gives_its_defaults_and_marks_what_is_required() -> None:
    assert plain(Drawing) == plain(Drawing(title="???"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": "3"}, "count must be a whole number, got '3'"),
        ({"count": True}, "count must be a whole number"),
        ({"count": 2.5}, "count must be a whole number"),
        ({"mode": "dot"}, "mode must be one of fill, line, got 'dot'"),
        ({"widths": [1, "x"]}, r"widths\[1\] must be a whole number"),
        ({"limit": "x"}, "limit must be a number or null"),
        ({"shape": {"kind": "SquareConfig", "sides": [1.0]}}, r"shape\.sides must be a list of 2"),
        ({"shape": {"kind": "Rond"}}, "'Round'"),
        ({"shape": {"kind": "Round", "radius": -1.0}}, r"shape: radius must be positive"),
        ({"frame": {"raduis": 1.0}}, "'radius'"),
        ({"title": None}, "title must be text"),
        ({"titel": "x"}, "'title'"),
    ],
)
def test_a_misfit_is_named_with_its_place(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build(Drawing, plain(EXAMPLES[0]) | change)


@pytest.mark.parametrize("values", [{}, {"title": "???"}])
def test_what_is_required_is_asked_for(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="title is required"):
        build(Drawing, values)


def test_numbers_are_read_as_people_write_them() -> None:
    config = build(Drawing, {"title": 3, "count": 1e5, "limit": 2})
    assert (config.title, config.count, config.limit) == ("3", 100_000, 2.0)
    assert isinstance(config.count, int)
    assert isinstance(config.limit, float)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("FlowEuler", "flow_euler"),
        ("UNetConfig", "unet"),
        ("DPMSolver", "dpm_solver"),
        ("MLPConfig", "mlp"),
        ("DDIM", "ddim"),
    ],
)
def test_names_on_the_command_line(kind: str, name: str) -> None:
    assert kind_name(kind) == name


def test_alternatives_stand_only_where_the_type_leaves_a_choice() -> None:
    values = plain(EXAMPLES[1])
    assert set(alternatives(Drawing, values, ["shape"])) == {"round", "square"}
    assert alternatives(Drawing, values, ["count"]) == {}
    assert alternatives(Drawing, values, ["nothing", "there"]) == {}
