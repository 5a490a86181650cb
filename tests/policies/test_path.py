"""The coordinate system all generative policies share; numbers computed by hand from the schedules' formulas."""

import numpy as np
import pytest
import torch

from sensorimotor.policies.path import (
    BETA_SCHEDULES,
    action_from_noise,
    action_from_velocity,
    betas,
    grid,
    index_on_grid,
    levels,
    mix,
    noise_from_action,
    noise_from_velocity,
    to_path,
    to_variance_preserving,
)


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def one(x: float) -> torch.Tensor:
    return torch.full((1, 1, 1), x, dtype=torch.float64)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0, 0.99936873),
        (10, 0.96671670),
        (30, 0.77400621),
        (50, 0.47826463),
        (90, 0.01954438),
        (99, 2.42857e-7),
    ],
)
def test_the_cosine_schedule_keeps_the_published_share_of_the_signal(k: int, expected: float) -> None:
    alpha, sigma = levels("squaredcos_cap_v2", 100)
    assert alpha[k] ** 2 == pytest.approx(expected, abs=2e-8)
    assert alpha[k] ** 2 + sigma[k] ** 2 == pytest.approx(1, abs=1e-12)


def test_the_cosine_schedule_starts_small_and_is_capped() -> None:
    beta = betas("squaredcos_cap_v2", 100)
    assert beta[0] == pytest.approx(6.312816e-4, abs=1e-9)
    assert beta[99] == 0.999


@pytest.mark.parametrize(
    ("k", "s", "total"),
    [(10, 0.156510, 1.165655), (50, 0.510873, 1.413879), (90, 0.876280, 1.129981), (99, 0.999507, None)],
)
def test_training_steps_lie_where_noise_and_signal_have_that_ratio(
    k: int, s: float, total: float | None
) -> None:
    alpha, sigma = levels("squaredcos_cap_v2", 100)
    assert float(grid("squaredcos_cap_v2", 100)[k]) == pytest.approx(s, abs=1e-6)
    if total is not None:
        assert alpha[k] + sigma[k] == pytest.approx(total, abs=1e-6)


def test_ddim_10_is_euler_on_these_positions() -> None:
    positions = grid("squaredcos_cap_v2", 100)[list(range(90, -1, -10))]
    expected = [
        0.876280,
        0.766239,
        0.673189,
        0.589743,
        0.510873,
        0.432536,
        0.350797,
        0.260994,
        0.156510,
        0.024517,
    ]
    assert positions.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_schedules_agree_with_diffusers(schedule: str) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=100, beta_schedule=schedule).alphas_cumprod  # pyright: ignore
    np.testing.assert_allclose(levels(schedule, 100)[0] ** 2, theirs, atol=2e-7)  # pyright: ignore


def test_every_route_from_training_step_50_gives_the_same_noise() -> None:
    alpha, sigma = (number(float(level[50])) for level in levels("squaredcos_cap_v2", 100))
    action, noise = one(0.3), one(-1.2)
    x = alpha * action + sigma * noise
    assert float(x) == pytest.approx(-0.659305, abs=1e-6)
    assert float(-noise / sigma) == pytest.approx(1.661331, abs=1e-6)
    y, s = to_path(x, alpha, sigma)
    assert (float(s), float(y)) == pytest.approx((0.510873, -0.466309), abs=1e-6)
    velocity = noise - action
    for route in (
        noise_from_velocity(y, s, velocity),
        noise_from_action(y, s, action),
        alpha * (alpha * noise - sigma * action) + sigma * x,
    ):
        assert float(route) == pytest.approx(-1.2, abs=1e-9)
    assert float(action_from_velocity(y, s, velocity)) == pytest.approx(0.3, abs=1e-9)
    assert float(action_from_noise(y, s, noise)) == pytest.approx(0.3, abs=1e-9)


def test_the_variance_preserving_formula_misapplied_to_the_path_is_off_as_computed() -> None:
    # A reader who mixes up the two coordinate systems gets this number; the test keeps the two apart.
    s, y, velocity = 0.510873, -0.466309, -1.5
    assert (1 - s) * velocity + s * y == pytest.approx(-0.971915, abs=1e-5)
    assert float(noise_from_velocity(one(y), number(s), one(velocity))) == pytest.approx(-1.2, abs=1e-5)


def test_edm_noising_is_a_point_of_the_path() -> None:
    level, x, clean = number(1.0), one(2.0), one(0.3)
    y, s = to_path(x, number(1.0), level)
    noise = (x - clean) / level
    assert (float(s), float(y), float(noise)) == pytest.approx((0.5, 1.0, 1.7))
    assert float(noise - clean) == pytest.approx(1.4)
    assert float(action_from_noise(y, s, noise)) == pytest.approx(0.3)


@pytest.mark.parametrize("s", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_variance_preserving_coordinates_and_back(s: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    scaled, alpha, sigma = to_variance_preserving(x, number(s))
    assert float(alpha**2 + sigma**2) == pytest.approx(1)
    back, position = to_path(scaled, alpha, sigma)
    torch.testing.assert_close(back, x)
    assert float(position) == pytest.approx(s)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.99])
def test_conversions_undo_the_mixing(s: float) -> None:
    generator = torch.Generator().manual_seed(2)
    action, noise = torch.randn(2, 3, 4, 2, generator=generator, dtype=torch.float64)
    x = mix(action, noise, number(s))
    velocity = noise - action
    torch.testing.assert_close(noise_from_velocity(x, number(s), velocity), noise)
    torch.testing.assert_close(action_from_velocity(x, number(s), velocity), action)
    torch.testing.assert_close(action_from_noise(x, number(s), noise), action)
    torch.testing.assert_close(noise_from_action(x, number(s), action), noise)


def test_a_position_per_row_means_what_single_positions_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    x, v = torch.randn(2, 3, 4, 2, generator=generator)
    s = torch.tensor([0.1, 0.5, 0.9])
    for function in (noise_from_velocity, action_from_velocity, noise_from_action, mix):
        arguments = (lambda i: (x[i], v[i], s[i])) if function is mix else (lambda i: (x[i], s[i], v[i]))
        together = function(*arguments(slice(None)))
        for i in range(3):
            row = function(*(a[None] if a.ndim else a for a in arguments(i)))
            torch.testing.assert_close(together[i], row[0])


def test_noise_from_an_action_stays_finite_where_no_noise_is_left() -> None:
    x = torch.ones(1, 2, 2)
    assert torch.isfinite(noise_from_action(x, torch.tensor(0.0), x)).all()


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
@pytest.mark.parametrize("steps", [2, 10, 100, 1000])
def test_grid_positions_are_their_own_training_step_exactly(schedule: str, steps: int) -> None:
    positions = grid(schedule, steps)  # pyright: ignore[reportArgumentType]
    assert torch.equal(index_on_grid(positions, positions), torch.arange(steps, dtype=torch.float32))
    for k in (0, steps // 2, steps - 1):
        assert float(index_on_grid(positions[k], positions)) == k


def test_between_grid_positions_the_step_is_interpolated_and_outside_it_is_the_nearest() -> None:
    positions = grid("squaredcos_cap_v2", 100)
    middle = (positions[40] + positions[41]) / 2
    assert float(index_on_grid(middle, positions)) == pytest.approx(40.5, abs=1e-4)
    assert float(index_on_grid(torch.tensor(0.0), positions)) == 0
    assert float(index_on_grid(torch.tensor(1.0), positions)) == 99
    many = index_on_grid(torch.linspace(0, 1, 500), positions)
    assert (many.diff() >= 0).all()
