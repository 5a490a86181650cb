"""Configurations from mappings: exact round trips, and the nearest valid word in every error."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.schema import from_mapping, nearest, to_mapping


@dataclass(frozen=True, kw_only=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Polygon:
    corners: tuple[tuple[float, float], ...] = ()
    hole: Circle | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    shape: Circle | Polygon = field(default_factory=Circle)
    others: tuple[Circle, ...] = ()
    size: tuple[int, float] = (3, 4.0)
    name: str | None = None


SCENES = [
    Scene(),
    Scene(shape=Polygon(corners=((0.0, 1.0), (2.5, 3.0)), hole=Circle(radius=0.5)), name="a"),
    Scene(others=(Circle(radius=2.0), Circle())),
]


@pytest.mark.parametrize("scene", SCENES)
def test_a_mapping_carries_a_config_exactly(scene: Scene) -> None:
    assert from_mapping(Scene, to_mapping(scene)) == scene


def test_missing_keys_take_their_defaults() -> None:
    assert from_mapping(Scene, {}) == Scene()
    assert from_mapping(Scene, {"shape": {"kind": "Circle"}}) == Scene()


def test_a_whole_number_is_good_enough_for_a_float() -> None:
    radius = from_mapping(Circle, {"radius": 2}).radius
    assert isinstance(radius, float)
    assert radius == 2.0


@pytest.mark.parametrize(
    ("choices", "values", "said"),
    [
        (Scene, {"shap": {}}, "unknown key 'shap' in Scene; did you mean 'shape'"),
        (Circle | Polygon, {"kind": ["Circle"]}, r"unknown kind \['Circle'\]"),
        (Circle | Polygon, {"kind": "Circe"}, "unknown kind 'Circe'; did you mean 'Circle'"),
        (Circle | Polygon, {"radius": 1.0}, "unknown kind None; allowed: Circle, Polygon"),
        (Scene, {"shape": {"kind": "Circle", "radios": 1.0}}, r"config\.shape: unknown key 'radios'"),
        (Scene, {"size": [1]}, r"config\.size: needs 2 values"),
        (Scene, {"kind": "os.system"}, "unknown kind 'os.system'"),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(
    choices: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        from_mapping(choices, values)


def test_nearest_lists_everything_and_guesses_only_when_close() -> None:
    assert nearest("diffusio", ["flow", "diffusion"]) == "did you mean 'diffusion'? allowed: diffusion, flow"
    assert nearest("zzz", ["flow", "diffusion"]) == "allowed: diffusion, flow"
