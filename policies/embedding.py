"""Numbers that say at which step of the way from noise to action a network is asked."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(step: Tensor, width: int) -> Tensor:
    """Diffusion Policy's step features (arXiv 2303.04137): sines, then cosines, of `step * 10000^(-i / (n - 1))`.

    Args:
        step: (B,).
        width: even, at least 4; n = width / 2 frequencies.

    Returns:
        (B, width).
    """
    n = width // 2
    rate = torch.exp(torch.arange(n, device=step.device) * (-math.log(10000.0) / (n - 1)))
    angle = step[..., None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def periodic(step: Tensor, width: int, *, shortest: float = 4.0, longest: float = 4000.0) -> Tensor:
    """Sines, then cosines, with periods spaced evenly in their logarithm (as openpi's time features).

    Args:
        step: (B,), in thousandths of the path where it is flow time.
        width: even, at least 4.
        shortest: period of the fastest pair, in steps.
        longest: period of the slowest pair.

    Returns:
        (B, width).
    """
    # In float64: the fastest period turns hundreds of times over the path.
    share = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=step.device)
    angle = 2 * math.pi / (shortest * (longest / shortest) ** share) * step.double()[..., None]
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


class StepEncoder(nn.Module):
    """Sinusoidal features through a two-layer network, as in Diffusion Policy's U-Net."""

    def __init__(self, width: int) -> None:
        """Width of the output and of the sinusoidal features; the hidden layer has 4 times as many units."""
        super().__init__()
        self.width = width
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))

    def forward(self, step: Tensor) -> Tensor:
        """(B,) steps to (B, width)."""
        return self.net(sinusoidal(step, self.width))
