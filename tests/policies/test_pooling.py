"""Spatial softmax by hand, and what it does not depend on."""

import math

import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.pooling import GlobalAverage, SpatialSoftmax, build_pooling, spatial_softmax


def test_the_expected_position_of_a_map_worked_out_by_hand() -> None:
    """Weights 1 : 2 : 3 : 4 over a 2 x 2 map: right column 0.6, lower row 0.7."""
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).log().view(1, 1, 2, 2)
    torch.testing.assert_close(spatial_softmax(scores)[0, 0], torch.tensor([0.6 - 0.4, 0.7 - 0.3]))


def test_three_columns_stand_at_minus_one_zero_and_one() -> None:
    """Weights 0.2, 0.3, 0.5 along one row, which stands at 0."""
    scores = torch.tensor([0.2, 0.3, 0.5]).log().view(1, 1, 1, 3)
    torch.testing.assert_close(spatial_softmax(scores)[0, 0], torch.tensor([0.3, 0.0]))


def test_temperature_divides_the_scores() -> None:
    """exp(1 / 0.5) = e^2: the right cell weighs e^2 / (1 + e^2)."""
    scores = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    expected = (math.exp(2) - 1) / (math.exp(2) + 1)
    torch.testing.assert_close(spatial_softmax(scores, 0.5)[0, 0, 0], torch.tensor(expected))


def test_even_maps_point_to_the_centre_and_peaks_to_themselves() -> None:
    even = spatial_softmax(torch.full((2, 3, 5, 7), 4.2))
    torch.testing.assert_close(even, torch.zeros(2, 3, 2), atol=1e-6, rtol=0)
    peak = torch.zeros(1, 1, 5, 7)
    peak[0, 0, 1, 6] = 100.0
    torch.testing.assert_close(spatial_softmax(peak)[0, 0], torch.tensor([1.0, -0.5]))


def test_adding_a_constant_to_a_map_moves_nothing() -> None:
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spatial_softmax(scores + 5.0), spatial_softmax(scores))


def test_maps_in_half_precision_give_points_in_single() -> None:
    assert spatial_softmax(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_widths_are_told() -> None:
    points, width = build_pooling(SpatialSoftmax(keypoints=5), 8)
    assert points is not None
    assert width == 10
    assert points(torch.zeros(3, 8, 4, 4)).shape == (3, 5, 2)
    assert build_pooling(GlobalAverage(), 8) == (None, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keypoints": 0}, "keypoints must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_impossible_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpatialSoftmax(**wrong)
