"""Actions padded to the width of a network: what is missing is drawn or left alone."""

import torch

from .path import widened
from .sampling import DrawOptions


def padded(options: DrawOptions, width: int) -> DrawOptions:
    """What a draw of so many numbers per action is given; noise that has fewer is followed by fresh numbers."""
    generator = options.get("generator") or torch.Generator().manual_seed(0)
    noise, prefix, pull = options.get("noise"), options.get("prefix"), options.get("pull")
    if noise is not None and noise.shape[-1] < width:
        missing = (*noise.shape[:-1], width - noise.shape[-1])
        rest = torch.randn(missing, generator=generator, device=generator.device)
        noise = torch.cat([noise, rest.to(noise)], dim=-1)
    wide: DrawOptions = {
        "generator": generator,
        "noise": noise,
        "prefix": None if prefix is None else widened(prefix, width),
        "pull": None if pull is None else pull.widened(width),
    }
    return options | wide
