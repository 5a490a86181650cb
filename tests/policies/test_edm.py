"""Noise levels, scalings and jumps, against numbers worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sensorimotor.policies.edm import (
    LARGEST,
    SMALLEST,
    boundary_scaling,
    denoise,
    denoising_weight,
    draw_levels,
    estimate,
    from_path,
    heun_step,
    jump,
    noise_levels,
)

LEVELS = noise_levels(80)


def constant(value: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda x, step, target: torch.full_like(x, value)


def full(value: float) -> Tensor:
    return torch.full((1, 1, 1), value)


def test_the_bins_are_the_published_levels() -> None:
    expected = {0: 80.0, 1: 75.20685, 27: 12.01478, 40: 3.85887, 54: 0.88502, 79: 0.02}
    assert {i: LEVELS[i].item() for i in expected} == pytest.approx(expected, rel=1e-5)
    assert (LEVELS.diff() < 0).all()


@pytest.mark.parametrize(
    ("t", "expected"), [(0.02, (1.0, 0.0, 1.998402)), (0.5, (0.5204, 0.339411, 1.414214))]
)
def test_the_scaling_at_a_level(t: float, expected: tuple[float, float, float]) -> None:
    assert [c.item() for c in boundary_scaling(torch.tensor(t), 0.5)] == pytest.approx(expected, abs=1e-5)


def test_noise_is_scaled_down_and_answers_to_the_spread_of_the_data() -> None:
    _, out, scale = boundary_scaling(torch.tensor(80.0), 0.5)
    assert (out.item(), scale.item()) == pytest.approx((0.499865, 0.0125), abs=1e-5)


def test_a_jump_by_hand() -> None:
    t, s = torch.tensor(1.0), torch.tensor(0.5)
    assert estimate(constant(0.3), full(2.0), t, s, 0.5).item() == pytest.approx(0.544567, abs=1e-5)
    assert jump(constant(0.3), full(2.0), t, s, 0.5).item() == pytest.approx(1.272284, abs=1e-5)


@pytest.mark.parametrize("t", [0.02, 0.5, 80.0])
@pytest.mark.parametrize("value", [-3.0, 0.0, 7.0])
def test_a_jump_to_where_it_starts_moves_nothing_whatever_the_network(t: float, value: float) -> None:
    x, level = torch.randn(2, 3, 4), torch.tensor(t)
    torch.testing.assert_close(jump(constant(value), x, level, level, 0.5), x)


def test_a_jump_to_the_action_moves_nothing_at_the_smallest_level() -> None:
    x, end = torch.randn(2, 3, 4), LEVELS[-1]
    assert torch.equal(jump(constant(9.0), x, end, end, 0.5), x)


def test_the_network_is_asked_at_unit_scale_and_at_250_times_the_logarithms() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor, step: Tensor, target: Tensor) -> Tensor:
        seen.extend([x, step, target])
        return x

    jump(spy, full(2.0), torch.tensor(0.5), torch.tensor(0.02), 0.5)
    assert [float(value) for value in seen] == pytest.approx([2.828427, -173.286795, -978.005751], rel=1e-5)


def test_a_perfect_denoiser_of_one_point_jumps_along_the_straight_way(gaussian: Callable) -> None:
    # From x = 2 at level 1 towards the point 0.3, half-way.
    t, s = torch.tensor(1.0), torch.tensor(0.5)
    point = gaussian(0.3, 0.0)
    told = point.encode({"state": torch.zeros(1, 1, 1)})
    assert heun_step(point, full(2.0), t, s, told).item() == pytest.approx(1.15, abs=1e-5)
    assert denoise(point, full(2.0), t, told).item() == pytest.approx(0.3, abs=1e-5)


def test_the_teachers_step_is_of_second_order(gaussian: Callable) -> None:
    normal = gaussian(0.0, 0.25)
    told = normal.encode({"state": torch.zeros(1, 1, 1)})
    t, u = LEVELS[40], LEVELS[41]
    reached = heun_step(normal, full(1.0), t, u, told).item()
    exact = ((0.25 + u**2) / (0.25 + t**2)).sqrt().item()
    assert exact == pytest.approx(0.9104945, abs=2e-6)
    assert reached == pytest.approx(0.9105017, abs=2e-6)
    euler = 1 + (u - t) * (1 - denoise(normal, full(1.0), t, told).item()) / t
    assert euler.item() == pytest.approx(0.9104205, abs=2e-6)


def test_a_member_is_asked_on_the_path_at_the_level(gaussian: Callable) -> None:
    # x = 2 at level 1 is x_s = 1 at s = 0.5; an action of 0.3 behind it means a noise of 1.7.
    x, s = full(1.0), torch.tensor(0.5)
    point, t = from_path(x, s)
    assert (point.item(), t.item()) == pytest.approx((2.0, 1.0))
    member = gaussian(0.3, 0.0)
    told = member.encode({"state": torch.zeros(1, 1, 1)})
    assert member.predict_noise(x, s, told).item() == pytest.approx(1.7, abs=1e-5)
    assert member.predict_velocity(x, s, told).item() == pytest.approx(1.4, abs=1e-5)


def test_beyond_the_levels_the_path_is_asked_at_the_nearest() -> None:
    noise = torch.randn(2, 4, 3)
    point, t = from_path(noise, torch.ones(2))
    assert t.tolist() == [LARGEST, LARGEST]
    torch.testing.assert_close(point, 80 * noise)  # as sampling begins
    _, t = from_path(noise, torch.zeros(2))
    assert t.tolist() == pytest.approx([SMALLEST, SMALLEST])
    below, above = (from_path(noise[:1], torch.tensor([80 / 81 + d]))[0] for d in (-1e-6, 1e-6))
    torch.testing.assert_close(below, above, rtol=2e-4, atol=0)


def test_levels_to_train_a_denoiser_at() -> None:
    t = draw_levels(200_000, torch.Generator().manual_seed(0))
    noisy, details = t[::2], t[1::2]
    lowest = (80 ** (1 / 7) + 0.7 * (0.02 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert (noisy.min().item(), noisy.max().item()) == pytest.approx((lowest, 80.0), rel=1e-3)
    even = (noisy ** (1 / 7)).sort().values
    torch.testing.assert_close(
        even, torch.linspace(lowest ** (1 / 7), 80 ** (1 / 7), len(even)), atol=0.01, rtol=0
    )
    assert (details.min().item(), details.median().item()) == pytest.approx((0.02, 0.301194), rel=0.02)
    assert details.log().std().item() == pytest.approx(1.2, rel=0.02)


@pytest.mark.parametrize(("t", "weight"), [(0.5, 8.0), (1.0, 5.0), (0.02, 2504.0)])
def test_the_weight_of_an_error_at_a_level(t: float, weight: float) -> None:
    assert denoising_weight(torch.tensor(t), 0.5).item() == pytest.approx(weight)
