"""A spec is refused when malformed, survives JSON, and tells which field of two specs disagrees."""

import math
from dataclasses import replace
from typing import Any

import pytest

from sensorimotor.data.errors import SpecError
from sensorimotor.data.spec import Field, Spec, check_connection

SPEC = Spec(
    observation={
        "state": Field(shape=(2,), unit="rad", low=(-1.0, -2.0), high=(1.0, math.inf), names=("a", "b"))
    },
    action=Field(shape=(3,), unit="m"),
    control_hz=20.0,
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (0,)}, "positive sizes"),
        ({"shape": (2,), "names": ("a",)}, "names needs 2 entries"),
        ({"shape": (2,), "low": (0.0,)}, "low needs 2 entries"),
        ({"shape": (2,), "low": (0.0, 2.0), "high": (1.0, 1.0)}, "element 1"),
        ({"shape": (1,), "low": (math.nan,), "high": (1.0,)}, "must not exceed"),
    ],
)
def test_a_malformed_field_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Field(**arguments)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"control_hz": 0.0}, "control_hz"),
        ({"control_hz": math.nan}, "control_hz"),
        ({"horizon": 0}, "horizon"),
        ({"action": Field(shape=(2, 2))}, "vector"),
        ({"start": 1}, "start"),
        ({"start": -1}, "start"),
        ({"horizon": 4, "execute": 5}, "needs horizon >= 5"),
        ({"observation_steps": 2, "start": -1, "horizon": 8, "execute": 8}, "needs horizon >= 9"),
    ],
)
def test_a_malformed_spec_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        replace(SPEC, **changes)


def test_json_carries_a_spec_exactly() -> None:
    spec = SPEC.chunked(observation_steps=2, horizon=16, execute=8, start=-1)
    assert Spec.from_json(spec.to_json()) == spec


def test_an_unknown_or_absent_key_is_named() -> None:
    with pytest.raises(SpecError, match="control_hertz"):
        Spec.from_dict({**SPEC.to_dict(), "control_hertz": 1})
    with pytest.raises(SpecError, match="action"):
        Spec.from_dict({key: value for key, value in SPEC.to_dict().items() if key != "action"})


def test_a_user_may_read_less_than_is_offered_in_windows_of_its_own() -> None:
    offered = replace(
        SPEC, observation={**SPEC.observation, "image.top": Field(shape=(4, 4, 3), dtype="uint8")}
    )
    check_connection(SPEC.chunked(observation_steps=2, horizon=8, execute=4), offered)
    assert offered.keep(("state",)) == SPEC


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observation": {"pose": SPEC.observation["state"]}}, "observation 'pose'"),
        ({"action": replace(SPEC.action, unit="rad")}, "action unit differs: policy rad, task m"),
        ({"action": Field(shape=(4,), unit="m")}, r"action shape differs: policy \(4,\), task \(3,\)"),
        ({"action": replace(SPEC.action, dtype="float64")}, "action dtype"),
        ({"observation": {"state": replace(SPEC.observation["state"], low=(-1.0, -3.0))}}, "'state' low"),
        ({"observation": {"state": replace(SPEC.observation["state"], names=("b", "a"))}}, "'state' names"),
        ({"control_hz": 10.0}, "control_hz differs: policy 10.0, task 20.0"),
    ],
)
def test_two_specs_that_disagree_say_where(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        check_connection(replace(SPEC, **changes), SPEC)


def test_what_one_side_leaves_open_is_not_compared() -> None:
    check_connection(replace(SPEC, action=Field(shape=(3,)), observation={"state": Field(shape=(2,))}), SPEC)
