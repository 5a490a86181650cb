"""The descent as a whole: when rows stop, what it costs, and that nobody depends on their neighbours."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.descent import Descent, Found, descend
from sensorimotor.policies.descent_step import DescentStep

PLAIN = DescentStep(momentum=0.0)


class Bowls:
    """E = k |x|^2 / 2 with each row's own k as its memory; counts the rows it is asked about."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: Tensor, memory: Tensor) -> Tensor:
        self.calls.append(len(x))
        return 0.5 * memory * x.square().sum(dim=(1, 2))


def run(
    sampler: Descent, step: DescentStep = PLAIN, *, rows: int = 6, size: float = 0.1
) -> tuple[Found, Bowls]:
    energy = Bowls()
    start = torch.randn(rows, 3, 2, generator=torch.Generator().manual_seed(0))
    found = descend(energy, start, torch.linspace(0.5, 9.0, rows), step, sampler, size=size)
    return found, energy


@pytest.mark.parametrize("tolerance", [math.inf, 1e30])
def test_without_a_wish_for_precision_every_row_makes_two_steps(tolerance: float) -> None:
    found, energy = run(Descent(steps=20, tolerance=tolerance))
    assert found.evaluations.tolist() == [2] * 6
    assert energy.calls == [6, 6]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_with_tolerance_zero_every_row_makes_all_steps(steps: int) -> None:
    found, energy = run(Descent(steps=steps, tolerance=0.0))
    assert found.evaluations.tolist() == [steps] * 6
    assert energy.calls == [6] * steps


def test_a_row_that_is_where_it_should_be_stops_even_then() -> None:
    energy = Bowls()
    start = torch.zeros(2, 3, 2)
    start[1] = 1.0
    found = descend(energy, start, torch.ones(2), PLAIN, Descent(steps=5), size=0.1)
    assert found.evaluations.tolist() == [2, 5]


def test_rows_stop_by_themselves_and_cost_nothing_afterwards() -> None:
    found, energy = run(Descent(steps=40, tolerance=0.3))
    spent = found.evaluations
    assert spent.unique().numel() > 2
    assert (spent >= 2).all()
    assert (spent <= 40).all()
    assert sum(energy.calls) == spent.sum().item()
    assert energy.calls == sorted(energy.calls, reverse=True)
    # The gradient that ended it was taken before the last step, at or below the tolerance.
    memory = torch.linspace(0.5, 9.0, 6).view(-1, 1, 1)
    before = found.x / (1 - 0.1 * memory) ** 2
    assert ((memory * before).flatten(1).norm(dim=1) <= 0.3001).all()


@pytest.mark.parametrize(("steps", "expected"), [(1, 1.8), (2, 1.458), (3, 1.03518), (4, 0.589178)])
def test_the_velocity_is_carried_from_step_to_step(steps: int, expected: float) -> None:
    start, step = torch.full((1, 1, 1), 2.0), DescentStep(momentum=0.9)
    found = descend(Bowls(), start, torch.ones(1), step, Descent(steps=steps), size=0.1)
    assert found.x.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_a_row_becomes_does_not_depend_on_the_others(momentum: float, normalize: bool) -> None:
    step = DescentStep(momentum=momentum, normalize=normalize, temperature=2.0)
    sampler = Descent(steps=15, tolerance=0.5)
    start = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7).view(
        -1, 1, 1
    )
    memory = torch.linspace(0.5, 9.0, 6)
    together = descend(Bowls(), start, memory, step, sampler, size=0.1)
    for i in range(6):
        alone = descend(Bowls(), start[i : i + 1], memory[i : i + 1], step, sampler, size=0.1)
        torch.testing.assert_close(alone.x[0], together.x[i])
        assert alone.evaluations[0] == together.evaluations[i]


def test_the_released_coupling_ties_rows_to_each_other() -> None:
    step, sampler = DescentStep(normalize=True, compat=True), Descent(steps=30, tolerance=1.5)
    start, memory = (
        torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0.5, 9.0, 6),
    )
    together = descend(Bowls(), start, memory, step, sampler, size=0.1)
    assert together.evaluations.unique().numel() == 1  # one norm for all: it grows with the batch
    alone = descend(Bowls(), start[:1], memory[:1], step, sampler, size=0.1)
    assert not torch.allclose(alone.x[0], together.x[0])
    assert alone.evaluations[0] < together.evaluations[0]
    apart = replace(step, compat=False)
    torch.testing.assert_close(
        descend(Bowls(), start[:1], memory[:1], step, sampler, size=0.1).x,
        descend(Bowls(), start[:1], memory[:1], apart, sampler, size=0.1).x,
    )


def test_equal_starts_end_in_equal_bits() -> None:
    one, other = (run(Descent(steps=9, tolerance=0.2), DescentStep())[0] for _ in range(2))
    assert torch.equal(one.x, other.x)


def shaken(memory: list[float], *, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Where a descent with noise ends that hardly has a slope, and the points it was evaluated at."""
    seen: list[Tensor] = []

    def energy(x: Tensor, memory: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return 0.5 * memory * x.square().sum(dim=(1, 2))

    start, generator = torch.ones(len(memory), 100, 2), torch.Generator().manual_seed(0)
    sampler = Descent(steps=steps, noise=0.5)
    found = descend(energy, start, torch.tensor(memory), PLAIN, sampler, size=1.0, generator=generator)
    return found.x, seen


def test_noise_shakes_every_step_but_the_last_of_each_row() -> None:
    end, (first, second, third, fourth) = shaken([0.0, 1e-9, 1e-9], steps=4)
    assert torch.equal(second[0], first[0])  # no slope: its second step is its last
    for before, after in ((torch.ones(3, 100, 2), first), (first[1:], second[1:]), (second[1:], third)):
        assert (after - before).std().item() == pytest.approx(0.5, rel=0.15)
    assert torch.equal(fourth, third)
    torch.testing.assert_close(end, torch.cat([first[:1], third]))
    assert shaken([1e-9], steps=1)[0].eq(1).all()  # nothing but a last step


def test_the_noise_of_a_row_does_not_depend_on_which_others_have_stopped() -> None:
    torch.testing.assert_close(shaken([0.0, 1e-9], steps=6)[0][1], shaken([1e-9, 1e-9], steps=6)[0][1])


def test_noise_needs_a_generator() -> None:
    with pytest.raises(ConfigError, match=r"noise 0.5 needs a generator"):
        descend(Bowls(), torch.zeros(3, 2, 1), torch.ones(3), PLAIN, Descent(noise=0.5), size=1.0)


def test_a_prefix_is_held_at_every_step() -> None:
    seen: list[Tensor] = []
    prefix = torch.tensor([[[5.0]], [[-3.0]]])

    def energy(x: Tensor, memory: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return 0.5 * (x[:, 1:] - x[:, :1]).square().sum(dim=(1, 2))  # the rest belongs where the prefix is

    start = torch.zeros(2, 3, 1)
    found = descend(
        energy, start, torch.ones(2), DescentStep(momentum=0.5), Descent(steps=30), size=0.3, prefix=prefix
    )
    assert all(torch.equal(x[:, :1], prefix) for x in seen)
    torch.testing.assert_close(found.x, prefix.expand(-1, 3, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"best_of": 0}, "best_of must be at least 1"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({"tolerance": math.nan}, "tolerance must be at least 0"),
        ({"spread": -0.1}, "spread must be at least 0"),
        ({"noise": math.inf}, "noise must be at least 0 and finite"),
        ({"size": 0.0}, "size must be positive"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
    ],
)
def test_impossible_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Descent(**wrong)
