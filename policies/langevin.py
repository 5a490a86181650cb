"""Langevin steps at one noise level, which bring samples of a composition nearer to the product of its members.

Source: Du et al., Reduce, Reuse, Recycle (arXiv 2302.11552).
"""

import math
from typing import Protocol

import torch
from torch import Tensor


class Asked(Protocol):
    """What answers on the path, and holds committed actions."""

    def hold(self, x: Tensor, s: Tensor) -> Tensor:
        """The point with its committed actions in place."""
        ...

    def noise_at(self, x: Tensor, s: Tensor) -> Tensor:
        """eps_hat at x_s."""
        ...


def corrected(
    ask: Asked, x: Tensor, s: Tensor, total: float, steps: int, size: float, generator: torch.Generator
) -> Tensor:
    """A point after so many steps `x + h score + sqrt(2 h) z`, h = size sigma^2; the score of x is -eps_hat / sigma.

    Args:
        ask: the policy under its condition.
        x: (B', H, A), `alpha a + sigma eps`.
        s: its place on the path, sigma / (alpha + sigma).
        total: alpha + sigma.
        steps: how many, one network call each.
        size: h as a share of sigma^2.
        generator: of z.
    """
    sigma = s * total
    for _ in range(steps):
        y = ask.hold(x / total, s)
        z = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        x = y * total - size * sigma * ask.noise_at(y, s) + math.sqrt(2 * size) * sigma * z
    return x
