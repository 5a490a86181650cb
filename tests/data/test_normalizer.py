"""Normalisation: known ranges, an exact inverse, constants, and loud errors where statistics are missing."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import NormalizerError
from sensorimotor.data.normalizer import Kind, Normalizer, NormalizerConfig, same_affine
from sensorimotor.data.spec import Field, Spec

Make = Callable[..., Episodes]
KINDS: tuple[Kind, ...] = ("min_max", "mean_std", "quantile", "identity")


def ramp(action: np.ndarray) -> Episodes:
    action = action.astype(np.float32)
    spec = Spec(
        observation={
            "state": Field(shape=action.shape[1:]),
            "image.top": Field(shape=(2, 2, 3), dtype="uint8"),
        },
        action=Field(shape=action.shape[1:]),
        control_hz=10.0,
    )
    images = np.zeros((len(action), 2, 2, 3), np.uint8)
    observation = {"state": action.copy(), "image.top": images}
    return Episodes(spec=spec, observation=observation, action=action, ends=np.array([len(action)]))


LINE = np.stack([np.linspace(-3, 5, 101), np.linspace(100, 300, 101)], axis=1)


@pytest.mark.parametrize(
    ("kind", "offset", "scale"),
    [
        ("min_max", [1.0, 200.0], [4.0, 100.0]),
        ("quantile", [1.0, 200.0], [3.2, 80.0]),  # 10 % and 90 % of the line
        ("mean_std", [1.0, 200.0], [0.08 * math.sqrt(850), 2 * math.sqrt(850)]),  # of 101 even steps
        ("identity", [0.0, 0.0], [1.0, 1.0]),
    ],
)
def test_statistics_are_those_of_a_straight_line(kind: Kind, offset: list[float], scale: list[float]) -> None:
    config = NormalizerConfig(action=kind, quantiles=(0.1, 0.9))
    fitted = Normalizer.fit(ramp(LINE), config).affine("action")
    torch.testing.assert_close(fitted, (torch.tensor(offset), torch.tensor(scale)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_gives_back_what_went_in(kind: Kind) -> None:
    normalizer = Normalizer.fit(ramp(LINE), NormalizerConfig(action=kind, observation=kind))
    x = torch.from_numpy(LINE.astype(np.float32)).reshape(1, 101, 1, 2)
    for key in ("action", "state"):
        there = normalizer.normalize(key, x)
        assert there.shape == x.shape
        torch.testing.assert_close(normalizer.unnormalize(key, there), x, rtol=1e-6, atol=1e-5)


def test_min_max_reaches_exactly_one_on_both_sides() -> None:
    normalizer = Normalizer.fit(ramp(LINE))
    ends = normalizer.normalize("action", torch.tensor([[-3.0, 100.0], [5.0, 300.0]]))
    torch.testing.assert_close(ends, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["min_max", "mean_std", "quantile"])
def test_a_constant_element_becomes_zero_and_comes_back_exactly(kind: Kind) -> None:
    constant = np.concatenate([LINE[:, :1], np.full((101, 1), 0.1)], axis=1)
    normalizer = Normalizer.fit(ramp(constant), NormalizerConfig(action=kind))
    x = torch.from_numpy(constant.astype(np.float32))
    there = normalizer.normalize("action", x)[:, 1]
    assert there.abs().max() < 1e-6  # a mean of many 0.1 may miss 0.1 by one rounding
    assert torch.isfinite(there).all()
    torch.testing.assert_close(normalizer.unnormalize("action", normalizer.normalize("action", x)), x)


def test_images_have_no_statistics() -> None:
    normalizer = Normalizer.fit(ramp(LINE))
    assert normalizer.keys == ("action", "state")
    with pytest.raises(
        NormalizerError, match=r"no statistics for 'image.top'; known keys are \['action', 'state'\]"
    ):
        normalizer.normalize("image.top", torch.zeros(1))


def test_data_that_is_not_finite_is_refused() -> None:
    episodes = ramp(LINE)
    episodes.action[3, 0] = np.nan
    with pytest.raises(NormalizerError, match="'action' holds 1 values"):
        Normalizer.fit(episodes)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_undone_is_refused(scale: float) -> None:
    with pytest.raises(NormalizerError, match="positive scales"):
        Normalizer({"action": (torch.zeros(1), torch.tensor([scale]))})


def test_saved_statistics_come_back_bit_for_bit(make_episodes: Make, tmp_path: Path) -> None:
    normalizer = Normalizer.fit(make_episodes(), NormalizerConfig(observation="mean_std"))
    normalizer.save(tmp_path / "normalizer.safetensors")
    loaded = Normalizer.load(tmp_path / "normalizer.safetensors")
    assert loaded.keys == normalizer.keys
    assert all(same_affine([normalizer, loaded], key) for key in normalizer.keys)


def test_members_are_told_apart_by_a_single_number() -> None:
    a, b = Normalizer.fit(ramp(LINE)), Normalizer.fit(ramp(LINE))
    assert same_affine([a, b])
    shifted = LINE.copy()
    shifted[0, 0] -= 1.0
    assert not same_affine([a, Normalizer.fit(ramp(shifted))])


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (-0.1, 0.9), (0.1, 1.1)])
def test_impossible_quantiles_are_refused(quantiles: tuple[float, float]) -> None:
    with pytest.raises(NormalizerError, match="quantiles"):
        replace(NormalizerConfig(), quantiles=quantiles)
