"""One step down a learned energy, as in EBT-Policy (arXiv 2510.27545).

It takes a chunk a and its velocity u to `z = a / rms(a) + sigma n`, looks ahead to `z + mu u`, takes the gradient g of
the energy there, and moves by `u <- mu u - rate g` to `a = z + u` (Nesterov's method). What becomes of a row depends
on that row alone.

Shapes: B' rows, H chunk horizon, A action width, P committed actions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.errors import ConfigError
from .path import hold, spread

Energy = Callable[[Tensor], Tensor]  # chunks (B', H, A) to energies (B',)

_EPSILON = 1.2e-7  # as published; keeps a chunk of zeros at zero


@dataclass(frozen=True, kw_only=True)
class DescentStep:
    """One step down the energy.

    Attributes:
        size: alpha, what a gradient is multiplied by. Energies that are means over outputs need large ones.
        momentum: mu, the share of the last move that is made again.
        normalize: bring every chunk to unit root mean square before the step.
        temperature: multiply the step by exp(energy) / temperature, so that high energies move further; None for
            steps that do not depend on the energy.
        clamp: bounds on the energy in that exponent. Without them a step too far raises the energy, which lengthens
            the step: training can run off to infinity.
        compat: as released, one scale for the whole batch and one gradient norm to stop by, which makes a chunk
            depend on what is sampled beside it; only for comparison with published weights.
    """

    size: float = 1.0
    momentum: float = 0.9
    normalize: bool = False
    temperature: float | None = None
    clamp: tuple[float, float] | None = (-3.0, 1.0)
    compat: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.size < math.inf:
            raise ConfigError(f"size must be positive and finite, got {self.size}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), got {self.momentum}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature must be positive and finite, or none, got {self.temperature}")
        if self.clamp is not None and not self.clamp[0] < self.clamp[1]:
            raise ConfigError(f"clamp must be (low, high) with low < high, or none, got {self.clamp}")


@dataclass(frozen=True)
class Move:
    """What one step did.

    Attributes:
        x: (B', H, A) where it led.
        velocity: (B', H, A).
        energy: (B',) at the point looked ahead to.
        gradient: (B', H, A) of the energy there; zero on committed actions.
    """

    x: Tensor
    velocity: Tensor
    energy: Tensor
    gradient: Tensor


def slope(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B',) and their gradient (B', H, A), themselves differentiable where gradients are on.

    A functional transform works under `no_grad`, in inference mode and inside other transforms, where
    `autograd.grad` fails; outside all of these, `quick_slope` costs half as much.
    """

    def total(y: Tensor) -> tuple[Tensor, Tensor]:
        e = energy(y)
        return e.sum(), e  # the sum: every row then has the gradient of its own energy

    gradient, (_, e) = torch.func.grad_and_value(total, has_aux=True)(x)
    return e, gradient


def quick_slope(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of `slope` without its graph, for sampling."""
    if torch.is_inference_mode_enabled():
        return slope(energy, x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        e = energy(x)
        (gradient,) = torch.autograd.grad(e.sum(), x)
    return e.detach(), gradient


def root_mean_square(x: Tensor, *, compat: bool = False) -> Tensor:
    """Of every row, (B', 1, 1), or of the whole batch."""
    square = x.square()
    mean = square.mean() if compat else square.mean(dim=(1, 2), keepdim=True)
    return (mean + _EPSILON).sqrt()


def rate(energy: Tensor, size: Tensor | float, step: DescentStep) -> Tensor:
    """What gradients are multiplied by, (B',); scaled steps are differentiable in the energy."""
    if step.temperature is None:
        return torch.ones_like(energy) * size
    exponent = energy if step.clamp is None else energy.clamp(*step.clamp)
    return size * exponent.exp() / step.temperature


def advance(
    energy: Energy,
    x: Tensor,
    velocity: Tensor,
    step: DescentStep,
    *,
    size: Tensor | float,
    noise: Tensor | None = None,
    prefix: Tensor | None = None,
    quick: bool = False,
) -> Move:
    """One step.

    Args:
        energy: to go down.
        x: (B', H, A).
        velocity: (B', H, A), zero at first.
        step: how.
        size: alpha, a number or (B',); in place of `step.size`.
        noise: (B', H, A) added before the gradient is taken.
        prefix: (B', P, A) actions that the chunk starts with and keeps.
        quick: for sampling, where nobody differentiates through the step.
    """
    z = x / root_mean_square(x, compat=step.compat) if step.normalize else x
    z = z if noise is None else z + noise
    z = hold(z, prefix)
    e, gradient = (quick_slope if quick else slope)(energy, z + step.momentum * velocity)
    if prefix is not None:
        gradient = hold(gradient, torch.zeros_like(prefix))
    velocity = step.momentum * velocity - spread(rate(e, size, step), x) * gradient
    return Move(z + velocity, velocity, e, gradient)
