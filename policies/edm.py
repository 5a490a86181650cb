"""Noise levels as EDM counts them (Karras et al., arXiv 2206.00364), and jumps from one level to another.

A point at level t is `x = a + t eps`, t from 80 (noise) to 0.02 (as good as the action). On the path of `path.py` it is
`x_s = x / (1 + t)` at `s = t / (1 + t)`, with the same noise. Every trained member can be asked at a level, and so be
the teacher of a network that jumps along the teacher's own way between levels (arXiv 2310.02279, 2405.07503).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .path import action_from_velocity, spread, to_path

if TYPE_CHECKING:
    from .policy import GenerativePolicy

SMALLEST, LARGEST = 0.02, 80.0
_RHO = 7.0
_NOISY_SHARE = 0.7  # of the way from the largest level to the smallest, in which half of `draw_levels` lie
_LOG_MEAN, _LOG_STD = -1.2, 1.2  # of the other half

Network = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, 250 ln t, 250 ln s) to an answer of the shape of x


@lru_cache(maxsize=8)
def noise_levels(bins: int) -> Tensor:
    """(bins,) float32 levels from `LARGEST` down to `SMALLEST`, evenly spaced in t^(1/7); do not write to it."""
    return _between(torch.linspace(0, 1, bins, dtype=torch.float64)).float()


def _between(share: Tensor) -> Tensor:
    """The level at a share of the way from the largest to the smallest."""
    noisy, clean = LARGEST ** (1 / _RHO), SMALLEST ** (1 / _RHO)
    return (noisy + share * (clean - noisy)) ** _RHO


def draw_levels(count: int, generator: torch.Generator) -> Tensor:
    """(count,) levels to train a denoiser at.

    Even places are evenly spaced in t^(1/7) over the noisy part; odd ones are lognormal, most of them where the details
    of an action are decided.
    """
    share = torch.rand(count, generator=generator, device=generator.device)
    logarithm = torch.randn(count, generator=generator, device=generator.device) * _LOG_STD + _LOG_MEAN
    even = torch.arange(count, device=share.device) % 2 == 0
    return torch.where(even, _between(_NOISY_SHARE * share), logarithm.exp()).clamp(SMALLEST, LARGEST)


def denoising_weight(t: Tensor, data_std: float) -> Tensor:
    """EDM's weight of a squared error of the action at level t: `(t^2 + sd^2) / (t sd)^2`."""
    return (t**2 + data_std**2) / (t * data_std) ** 2


def boundary_scaling(t: Tensor, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in) at level t; at the smallest level the estimate is the point itself."""
    length = torch.sqrt(t**2 + data_std**2)
    skip = data_std**2 / ((t - SMALLEST) ** 2 + data_std**2)
    return skip, (t - SMALLEST) * data_std / length, 1 / length


def estimate(network: Network, x: Tensor, t: Tensor, s: Tensor, data_std: float) -> Tensor:
    """g(x, t, s): the action towards which a straight line leads from x at level t to the way's point at level s.

    At s = t that is the mean action of all that could lie behind x, the denoiser.

    Args:
        network: answers at unit scale.
        x: (B, H, A).
        t: () or (B,) level of x.
        s: () or (B,) level to jump to, at most t.
        data_std: standard deviation of normalised actions.
    """
    skip, out, scale = (spread(c, x) for c in boundary_scaling(t, data_std))
    return skip * x + out * network(scale * x, _step(t), _step(s)).to(x)


def jump(network: Network, x: Tensor, t: Tensor, s: Tensor, data_std: float) -> Tensor:
    """G(x, t, s) = (s/t) x + (1 - s/t) g(x, t, s): the point at level s on the way through x; x itself at s = t."""
    share = spread(s / t, x)
    return share * x + (1 - share) * estimate(network, x, t, s, data_std)


def _step(t: Tensor) -> Tensor:
    return 250 * torch.log(t)


def denoise(policy: "GenerativePolicy", x: Tensor, t: Tensor, condition: Any) -> Tensor:
    """The action that a trained policy sees in x (B, H, A) at level t, () or (B,)."""
    on_path, s = to_path(x, torch.ones_like(t), t)
    return action_from_velocity(on_path, s, policy.predict_velocity(on_path, s, condition))


def heun_step(policy: "GenerativePolicy", x: Tensor, t: Tensor, u: Tensor, condition: Any) -> Tensor:
    """One step of Heun's method along `dx/dt = (x - D) / t`, from level t to level u; two calls of the policy."""
    before, after = spread(t, x), spread(u, x)
    slope = (x - denoise(policy, x, t, condition)) / before
    reached = x + (after - before) * slope
    slope = (slope + (reached - denoise(policy, reached, u, condition)) / after) / 2
    return x + (after - before) * slope


def from_path(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(x, t) of a point x_s of the path, its level held to the range that networks are trained in.

    Nearer to the noise than the largest level, the noise alone is scaled to it.
    """
    t = s / (1 - s)
    scale = torch.where(t > LARGEST, LARGEST / s, 1 / (1 - s))
    return spread(scale, x) * x, t.clamp(SMALLEST, LARGEST)
