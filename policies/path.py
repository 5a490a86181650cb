"""One coordinate system for every generative policy: the straight line from action to noise.

`x_s = (1 - s) a + s eps`, s in [0, 1], velocity `v = eps - a`. A network trained elsewhere, on
`x = alpha a + sigma eps`, sits at `s = sigma / (alpha + sigma)` and `x_s = x / (alpha + sigma)`, with the same noise:
for DDPM alpha^2 + sigma^2 = 1, for EDM alpha = 1. The score of x_s is `-eps / s`.
"""

import math
from functools import lru_cache
from typing import Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

BetaSchedule = Literal["squaredcos_cap_v2", "linear", "scaled_linear"]
BETA_SCHEDULES = ("squaredcos_cap_v2", "linear", "scaled_linear")

_SMALLEST_S = 1e-3  # below this, an action says nothing about the noise it was mixed with


def spread(s: Tensor, x: Tensor) -> Tensor:
    """A scalar or (B,) s, shaped to multiply x (B, H, A)."""
    return s if s.ndim == 0 else s.view(-1, 1, 1)


def mix(action: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """The point on the path at s."""
    s = spread(s, action)
    return (1 - s) * action + s * noise


def hold(x: Tensor, prefix: Tensor | None) -> Tensor:
    """Chunks (B, H, A) whose first steps are those of a prefix (B, P, A)."""
    return x if prefix is None else torch.cat([prefix.to(x), x[:, prefix.shape[1] :]], dim=1)


def widened(x: Tensor, width: int) -> Tensor:
    """Zeros after the last numbers of x (..., n), up to `width`."""
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def noise_from_velocity(x: Tensor, s: Tensor, velocity: Tensor) -> Tensor:
    """The noise in x_s."""
    return x + (1 - spread(s, x)) * velocity


def action_from_velocity(x: Tensor, s: Tensor, velocity: Tensor) -> Tensor:
    """The action in x_s."""
    return x - spread(s, x) * velocity


def action_from_noise(x: Tensor, s: Tensor, noise: Tensor) -> Tensor:
    """The action in x_s; the caller keeps s below 1."""
    s = spread(s, x)
    return (x - s * noise) / (1 - s)


def noise_from_action(x: Tensor, s: Tensor, action: Tensor) -> Tensor:
    """The noise in x_s; s is floored, since at 0 nothing is left of it."""
    s = spread(s, x).clamp_min(_SMALLEST_S)
    return (x - (1 - s) * action) / s


def to_path(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x_s, s) of a point `x = alpha a + sigma eps` of any noising; alpha and sigma are scalars or (B,)."""
    total = alpha + sigma
    return x / spread(total, x), sigma / total


def to_variance_preserving(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x, alpha, sigma) with alpha^2 + sigma^2 = 1 of a point x_s; alpha and sigma broadcast against x."""
    s = spread(s, x)
    length = torch.sqrt((1 - s) ** 2 + s**2)
    return x / length, (1 - s) / length, s / length


@lru_cache(maxsize=32)
def betas(schedule: BetaSchedule, steps: int) -> NDArray[np.float64]:
    """(steps,) noise added per training step of a DDPM.

    `squaredcos_cap_v2` is Nichol and Dhariwal's cosine schedule (arXiv 2102.09672, eq. 17) with betas capped at
    0.999; the others run from 1e-4 to 0.02, linearly in beta or in its square root.
    """
    match schedule:
        case "squaredcos_cap_v2":
            level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
            return np.minimum(1 - level[1:] / level[:-1], 0.999)
        case "linear":
            return np.linspace(1e-4, 0.02, steps)
        case "scaled_linear":
            return np.linspace(1e-4**0.5, 0.02**0.5, steps) ** 2
        case _:
            assert_never(schedule)


@lru_cache(maxsize=32)
def levels(schedule: BetaSchedule, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(alpha, sigma), each (steps,), of every training step of a DDPM."""
    kept = np.cumprod(1 - betas(schedule, steps))
    return np.sqrt(kept), np.sqrt(1 - kept)


@lru_cache(maxsize=32)
def grid(schedule: BetaSchedule, steps: int) -> Tensor:
    """(steps,) float32 path positions s of a DDPM's training steps, increasing; do not write to it."""
    alpha, sigma = levels(schedule, steps)
    return torch.tensor(sigma / (alpha + sigma), dtype=torch.float32)


def index_on_grid(s: Tensor, positions: Tensor) -> Tensor:
    """Fractional training step of s, linear between grid positions; exactly k where s is the grid's k-th position."""
    right = torch.searchsorted(positions, s.contiguous()).clamp(1, len(positions) - 1)
    low, high = positions[right - 1], positions[right]
    return ((right - 1) + (s - low) / (high - low)).clamp(0, len(positions) - 1)
