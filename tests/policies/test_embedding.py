from collections.abc import Callable

import pytest
import torch

from sensorimotor.policies.embedding import StepEncoder, periodic, sinusoidal


def test_sinusoidal_features_are_the_published_ones() -> None:
    expected = [0.14112, 0.138798, 0.006463, 0.0003, -0.989992, 0.990321, 0.999979, 1.0]
    assert sinusoidal(torch.tensor([3.0]), 8)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_periodic_features_of_flow_time_are_the_published_ones() -> None:
    features = periodic(torch.tensor([500.0]), 8)[0]  # flow time 0.5, counted in thousandths
    assert features.tolist() == pytest.approx([0, 0, 1, 0.707107, 1, -1, 0, 0.707107], abs=1e-6)


def test_periodic_features_are_exact_for_the_shortest_period() -> None:
    # 249.5 turns: in float32 the angle alone would be off by 1e-4.
    features = periodic(torch.tensor([998.0]), 4)
    assert features[0, 0].item() == pytest.approx(0, abs=1e-6)
    assert features[0, 2].item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("features", [sinusoidal, periodic])
def test_a_scalar_step_has_the_features_of_a_batch_of_one(features: Callable) -> None:
    torch.testing.assert_close(features(torch.tensor(7.0), 16), features(torch.tensor([7.0]), 16)[0])


def test_the_step_encoder_tells_neighbouring_steps_apart() -> None:
    torch.manual_seed(0)
    out = StepEncoder(32)(torch.arange(100.0))
    assert out.shape == (100, 32)
    assert (out.diff(dim=0).abs().amax(dim=1) > 1e-4).all()
