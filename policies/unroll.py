"""Training through a descent: from noise, several steps down the energy, the end pulled towards the demonstration."""

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.errors import ConfigError
from .descent_step import DescentStep, Energy, advance
from .network import draw


@dataclass(frozen=True, kw_only=True)
class Unroll:
    """The descent that training runs through.

    Attributes:
        steps: K, least number of steps.
        extra: up to so many more, drawn for every batch.
        size_spread: the step size of every row is drawn from [alpha / size_spread, alpha size_spread].
        noise: standard deviation of the noise before the first and (never quite) the last step, a cosine between.
        truncate: judge the last step only, rather than the mean over all.
        detach: let no gradient pass from one step to the one before. Without, training differentiates the whole
            descent ("System 2" of arXiv 2507.02092, which also restarts from a buffer of its own results; that is
            left out, as chunks are short and starts are cheap).
    """

    steps: int = 6
    extra: int = 4
    size_spread: float = 1.5
    noise: tuple[float, float] = (0.2, 0.002)
    truncate: bool = True
    detach: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.extra < 0:
            raise ConfigError(
                f"steps must be at least 1 and extra at least 0, got {self.steps} and {self.extra}"
            )
        if not 1 <= self.size_spread < math.inf:
            raise ConfigError(f"size_spread must be at least 1 and finite, got {self.size_spread}")
        if not all(0 <= sigma < math.inf for sigma in self.noise):
            raise ConfigError(f"noise must hold two finite numbers of at least 0, got {self.noise}")


def noise_level(k: int, steps: int, noise: tuple[float, float]) -> float:
    """Noise before step k = 0..steps - 1: `low + (high - low) (1 + cos(pi k / steps)) / 2`."""
    high, low = noise
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * k / steps))


def unrolled_error(
    energy: Energy,
    start: Tensor,
    action: Tensor,
    step: DescentStep,
    unroll: Unroll,
    generator: torch.Generator,
    *,
    size: Tensor | float,
) -> Tensor:
    """Squared error (B, H, A) of the descent's last step, or its mean over all steps.

    Args:
        energy: of chunks (B, H, A) under the observations of the batch.
        start: (B, H, A) where the descent begins.
        action: (B, H, A) where it should end.
        step: how to move.
        unroll: how far.
        generator: of the number of steps, the sizes and the noise.
        size: alpha, a number or a scalar tensor.
    """
    device = generator.device
    steps = unroll.steps + int(torch.randint(unroll.extra + 1, (), generator=generator, device=device))
    low, high = 1 / unroll.size_spread, unroll.size_spread
    share = low + (high - low) * torch.rand(len(action), generator=generator, device=device).to(action)
    x, velocity = start, torch.zeros_like(start)
    errors = []
    for k in range(steps):
        if unroll.detach:
            x, velocity = x.detach(), velocity.detach()
        # Of a detached descent whose last step alone is judged, the others need no graph.
        silent = unroll.detach and unroll.truncate and k < steps - 1
        level = noise_level(k, steps, unroll.noise)
        noise = level * draw(action.shape, generator, action) if level else None
        with torch.no_grad() if silent else contextlib.nullcontext():
            move = advance(energy, x, velocity, step, size=size * share, noise=noise, quick=silent)
        x, velocity = move.x, move.velocity
        errors.append((x - action).square())
    return errors[-1] if unroll.truncate else torch.stack(errors).mean(dim=0)
