"""The convention probe: every broken member is found, and no sound one is suspected."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from sensorimotor.composition.probe import check_member, probe
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec


@pytest.fixture
def recordings() -> Episodes:
    """Actions of N(0.5, 0.36)."""
    generator = np.random.default_rng(0)
    return Episodes(
        spec=Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10),
        observation={"state": np.zeros((400, 1), np.float32)},
        action=generator.normal(0.5, 0.6, (400, 1)).astype(np.float32),
        ends=np.array([400]),
    )


def member(gaussian: Callable, **other: Callable[[Any, Tensor, Tensor, Any], Tensor]) -> Any:
    """The exact policy, with some of its answers replaced."""
    policy = gaussian(0.5, 0.36)
    kind = type("Elsewhere", (type(policy),), other)
    policy.__class__ = kind
    return policy


def exact(policy: Any, x: Tensor, s: Tensor) -> Tensor:
    action, noise = policy._clean_and_noise(x, s)
    return noise - action


def test_a_sound_member_passes(gaussian: Callable, recordings: Episodes) -> None:
    found = check_member(gaussian(0.5, 0.36), recordings)
    assert found.problems == ()
    assert found.slope == pytest.approx(1.0, abs=0.1)
    assert found.contradiction < 1e-5
    assert check_member(gaussian(0.5, 0.36, offset=0.5, scale=0.6), recordings).action_rms == pytest.approx(
        1.0, abs=0.1
    )


@pytest.mark.parametrize(
    ("velocity", "message"),
    [
        (lambda p, x, s, c: -exact(p, x, s), "gives velocities of the opposite sign"),
        (lambda p, x, s, c: exact(p, x, 1 - s), "counts time the other way .0 at the noise.; ask it"),
        (lambda p, x, s, c: -exact(p, x, 1 - s), "counts time the other way .* opposite sign, as openpi"),
        (lambda p, x, s, c: 3 * exact(p, x, s), "answers on another scale: true velocities are 0.3"),
    ],
    ids=["sign", "time", "both", "scale"],
)
def test_other_conventions_are_found(
    gaussian: Callable, recordings: Episodes, velocity: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_member(member(gaussian, predict_velocity=velocity), recordings)


def test_noise_that_contradicts_the_velocity_is_found(gaussian: Callable, recordings: Episodes) -> None:
    wrong = member(gaussian, predict_noise=lambda p, x, s, c: x + s * exact(p, x, s))
    with pytest.raises(ConfigError, match="contradicts itself"):
        check_member(wrong, recordings)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_a_missing_normaliser_is_found(gaussian: Callable, recordings: Episodes, scale: float) -> None:
    far = replace(recordings, action=recordings.action / np.float32(scale))
    with pytest.raises(ConfigError, match="its normaliser is missing or of other data"):
        check_member(gaussian(0.5, 0.36), far)
    assert probe(gaussian(0.5 / scale, 0.36 / scale**2, scale=1 / scale), far).problems == ()
