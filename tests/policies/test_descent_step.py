"""One step down energies whose every derivative is known."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.descent_step import (
    DescentStep,
    advance,
    quick_slope,
    rate,
    root_mean_square,
    slope,
)
from sensorimotor.policies.unroll import Unroll, noise_level, unrolled_error

PLAIN = DescentStep(momentum=0.0)


def bowl(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum(dim=(1, 2))


def numbers(*values: float) -> Tensor:
    """One row per value, as chunks of one action of one number."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


def test_nesterovs_recursion_on_a_bowl() -> None:
    x, u = numbers(2.0), numbers(0.0)
    xs, us = [], []
    for _ in range(4):
        move = advance(bowl, x, u, DescentStep(momentum=0.9), size=0.1)
        x, u = move.x, move.velocity
        xs.append(x.item())
        us.append(u.item())
    assert xs == pytest.approx([1.8, 1.458, 1.03518, 0.589178], abs=1e-6)
    assert us == pytest.approx([-0.2, -0.342, -0.42282, -0.446002], abs=1e-6)


def test_plain_descent_of_an_uneven_bowl() -> None:
    curvature = torch.tensor([[2.0, 0.5]], dtype=torch.float64)

    def energy(x: Tensor) -> Tensor:
        return 0.5 * (curvature * x.square()).sum(dim=(1, 2))

    x, still = torch.ones(1, 1, 2, dtype=torch.float64), torch.zeros(1, 1, 2, dtype=torch.float64)
    for point, height in (((0.2, 0.8), 0.2), ((0.04, 0.64), 0.104), ((0.008, 0.512), 0.0656)):
        x = advance(energy, x, still, PLAIN, size=0.4).x
        assert x.flatten().tolist() == pytest.approx(point, abs=1e-9)
        assert energy(x).item() == pytest.approx(height, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "levels"),
    [(6, [0.2, 0.186737, 0.1505, 0.101, 0.0515, 0.015263]), (3, [0.2, 0.1505, 0.0515])],
)
def test_training_noise_falls_along_a_cosine_that_it_never_finishes(steps: int, levels: list[float]) -> None:
    assert [noise_level(k, steps, (0.2, 0.002)) for k in range(steps)] == pytest.approx(levels, abs=1e-6)


@pytest.mark.parametrize(("energy", "expected"), [(-3.0, 5.531896), (0.0, 111.111111), (1.0, 302.031314)])
def test_steps_grow_with_the_energy(energy: float, expected: float) -> None:
    step = DescentStep(size=1000.0, temperature=9.0)
    height = torch.tensor([energy], dtype=torch.float64)
    assert rate(height, 1000.0, step).item() == pytest.approx(expected, abs=1e-5)


def test_energies_beyond_the_clamp_lengthen_no_step() -> None:
    step = DescentStep(temperature=9.0)
    ends = rate(torch.tensor([-3.0, 1.0]), 1.0, step)
    assert torch.equal(rate(torch.tensor([-50.0, 200.0]), 1.0, step), ends)
    free = DescentStep(temperature=9.0, clamp=None)
    assert rate(torch.tensor([200.0]), 1.0, free).isinf().all()


@pytest.mark.parametrize(("clamp", "sound"), [((-3.0, 1.0), True), (None, False)])
def test_without_the_clamp_a_step_too_far_runs_off_to_infinity(
    clamp: tuple[float, float] | None, sound: bool
) -> None:
    step = DescentStep(momentum=0.0, temperature=1.0, clamp=clamp)
    x = torch.full((1, 1, 1), 2.0)
    for _ in range(8):
        x = advance(bowl, x, torch.zeros_like(x), step, size=0.5).x
    assert bool(x.isfinite().all()) == sound


@pytest.mark.parametrize(
    ("step", "end", "derivative"),
    [
        (PLAIN, 0.8, -0.16),
        # With exp(E) held constant in the derivative it would be -0.248094.
        (DescentStep(momentum=0.0, temperature=1.0, clamp=None), 0.456344, -0.496188),
    ],
)
def test_what_an_end_owes_to_the_landscape_is_of_second_order(
    step: DescentStep, end: float, derivative: float
) -> None:
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    move = advance(
        lambda x: 0.5 * theta * x.square().sum(dim=(1, 2)), numbers(1.0), numbers(0.0), step, size=0.1
    )
    assert move.x.item() == pytest.approx(end, abs=1e-6)
    move.x.square().sum().backward()
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(derivative, abs=1e-6)


@pytest.mark.parametrize(
    ("momentum", "truncate", "detach", "loss", "derivative"),
    [
        (0.0, True, True, 0.4096, -0.1024),
        (0.0, True, False, 0.4096, -0.2048),
        (0.0, False, True, 0.5248, -0.1312),
        (0.0, False, False, 0.5248, -0.1824),
        # By hand: u_1 = -0.2, a_1 = 0.8, slope at 0.62, u_2 = -0.304, a_2 = 0.496.
        (0.9, True, True, 0.246016, -0.061504),
        (0.9, True, False, 0.246016, -0.212288),
        (0.9, False, True, 0.443008, -0.110752),
        (0.9, False, False, 0.443008, -0.186144),
    ],
)
def test_two_unrolled_steps_have_the_known_loss_and_gradient(
    momentum: float, truncate: bool, detach: bool, loss: float, derivative: float
) -> None:
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    unroll = Unroll(
        steps=2, extra=0, size_spread=1.0, noise=(0.0, 0.0), truncate=truncate, detach=detach
    )  # fmt: skip
    error = unrolled_error(
        lambda x: 0.5 * theta * x.square().sum(dim=(1, 2)), numbers(1.0), numbers(0.0),
        DescentStep(momentum=momentum), unroll, torch.Generator().manual_seed(0), size=0.1,
    )  # fmt: skip
    assert error.item() == pytest.approx(loss, abs=1e-6)
    error.sum().backward()
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(derivative, abs=1e-6)


def test_unrolled_descents_are_shaken_by_the_noise_of_each_step() -> None:
    seen = [torch.zeros(400, 4, 2)]

    def flat(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return 0.0 * x.sum(dim=(1, 2))

    unrolled_error(flat, seen[0], seen[0], PLAIN, Unroll(extra=0), torch.Generator().manual_seed(0), size=0.1)
    moved = [(after - before).std().item() for before, after in itertools.pairwise(seen)]
    assert moved == pytest.approx([0.2, 0.186737, 0.1505, 0.101, 0.0515, 0.015263], rel=0.05)


def test_unrolled_descents_vary_in_length_and_step_size() -> None:
    calls: list[int] = []

    def energy(x: Tensor) -> Tensor:
        calls.append(1)
        return bowl(x)

    lengths, rates = set(), []
    for seed in range(60):
        calls.clear()
        generator = torch.Generator().manual_seed(seed)
        still = Unroll(noise=(0.0, 0.0))
        error = unrolled_error(
            energy, torch.ones(40, 1, 1), torch.zeros(40, 1, 1), PLAIN, still, generator, size=0.1
        )
        lengths.add(len(calls))
        rates.append((1 - error.flatten().sqrt() ** (1 / len(calls))) / 0.1)
    assert lengths == {6, 7, 8, 9, 10}
    shares = torch.cat(rates)
    assert shares.min().item() == pytest.approx(1 / 1.5, abs=0.01)
    assert shares.max().item() == pytest.approx(1.5, abs=0.01)
    assert shares.mean().item() == pytest.approx((1.5 + 1 / 1.5) / 2, abs=0.02)  # uniform, not log-uniform


def test_every_chunk_is_brought_to_unit_length_by_itself() -> None:
    x = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    alone = x / root_mean_square(x)
    torch.testing.assert_close(alone, torch.tensor([[[0.848528, 1.131371]], [[0.0, 0.0]]]))
    coupled = x / root_mean_square(x, compat=True)
    torch.testing.assert_close(coupled, torch.tensor([[[1.2, 1.6]], [[0.0, 0.0]]]))


@pytest.mark.parametrize("take", [slope, quick_slope])
def test_a_gradient_belongs_to_its_row_whatever_the_size_of_the_batch(take: Callable) -> None:
    # Were the mean over the batch differentiated, steps would shrink with it.
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    energy, gradient = take(bowl, x)
    torch.testing.assert_close(gradient, x)
    torch.testing.assert_close(energy, bowl(x))
    torch.testing.assert_close(take(bowl, x[2:3])[1], gradient[2:3])
    assert not x.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("take", [slope, quick_slope])
def test_gradients_are_found_in_every_mode(mode: Callable, take: Callable) -> None:
    with mode():
        x = torch.ones(2, 1, 1)
        torch.testing.assert_close(take(bowl, x)[1], x)


def test_a_step_can_be_differentiated_by_transforms_too() -> None:
    # pull back through x -> x - 0.1 x
    pull = torch.func.vjp(lambda x: advance(bowl, x, torch.zeros_like(x), PLAIN, size=0.1).x, numbers(1.0))[1]
    assert pull(numbers(1.0))[0].item() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("temperature", "unchanged"), [(None, True), (1.0, False)]
)  # fmt: skip
def test_a_constant_in_the_energy_moves_nothing_unless_steps_are_scaled_by_it(
    temperature: float | None, unchanged: bool
) -> None:
    step = DescentStep(temperature=temperature)
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)) / 4
    offset = torch.tensor([0.5, -1.0, 0.2, -2.0])
    u = torch.zeros_like(x)
    one = advance(bowl, x, u, step, size=0.1).x
    other = advance(lambda y: bowl(y) + offset, x, u, step, size=0.1).x
    assert torch.equal(one, other) == unchanged


def test_committed_actions_stand_still_and_have_no_say_in_the_length_of_the_gradient() -> None:
    prefix, x = torch.full((2, 2, 1), 7.0), torch.randn(2, 5, 1)
    move = advance(bowl, x, torch.zeros_like(x), DescentStep(), size=0.1, prefix=prefix)
    assert torch.equal(move.x[:, :2], prefix)
    assert (move.gradient[:, :2] == 0).all()
    torch.testing.assert_close(move.x[:, 2:], 0.9 * x[:, 2:])
    torch.testing.assert_close(move.energy, bowl(torch.cat([prefix, x[:, 2:]], dim=1)))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (DescentStep, {"size": 0.0}, "size must be positive and finite, got 0.0"),
        (DescentStep, {"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        (DescentStep, {"temperature": math.nan}, "temperature must be positive"),
        (DescentStep, {"clamp": (1.0, -3.0)}, "clamp must be"),
        (Unroll, {"steps": 0}, "steps must be at least 1"),
        (Unroll, {"extra": -1}, "extra at least 0"),
        (Unroll, {"size_spread": 0.5}, "size_spread must be at least 1"),
        (Unroll, {"noise": (0.2, -1.0)}, "noise must hold two"),
    ],
)
def test_impossible_values_are_refused(kind: type, wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**wrong)
