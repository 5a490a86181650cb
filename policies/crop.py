"""How a camera's frames are shown to a network: which part of them, and in which light.

In training the part is drawn at random, one for all frames of a window, so that nothing seems to move that does not
(Diffusion Policy, arXiv 2303.04137: 76 x 76 px of 84 x 84); otherwise it is the centre.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # share of red, green and blue in how bright a colour looks (ITU-R BT.601)


@dataclass(frozen=True)
class View:
    """What is seen of B windows of one camera.

    Attributes:
        corner: (B, 2) row and column of the crop's upper left pixel.
        light: (B, 3) factors on brightness, contrast and saturation, or None for the frames as they are.
    """

    corner: Tensor
    light: Tensor | None = None


def crop_size(frame: tuple[int, int], share: float) -> tuple[int, int]:
    """Height and width of a crop that keeps a share of each side of a frame."""
    return max(1, round(share * frame[0])), max(1, round(share * frame[1]))


def centre_view(windows: int, frame: tuple[int, int], size: tuple[int, int]) -> View:
    """The middle of every frame, in its own light."""
    corner = torch.tensor([(whole - part) // 2 for whole, part in zip(frame, size, strict=True)])
    return View(corner.expand(windows, 2))


def random_view(
    windows: int,
    frame: tuple[int, int],
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    jitter: float = 0.0,
) -> View:
    """One crop per window, uniform over all that fit, and with `jitter` factors uniform in 1 - jitter..1 + jitter."""
    corner = torch.stack(
        [
            torch.randint(whole - part + 1, (windows,), generator=generator, device=generator.device)
            for whole, part in zip(frame, size, strict=True)
        ],
        dim=1,
    )
    if not jitter:
        return View(corner)
    return View(
        corner, 1 + jitter * (2 * torch.rand(windows, 3, generator=generator, device=generator.device) - 1)
    )


def crop(frames: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Parts (B, O, h, w, C) of frames (B, O, H, W, C), those of window b beginning at corner[b]."""
    if tuple(frames.shape[2:4]) == size:
        return frames
    corner = corner.to(frames.device)
    parts = frames.unfold(2, size[0], 1).unfold(
        3, size[1], 1
    )  # views (B, O, rows, columns, C, h, w) of all crops
    chosen = parts[torch.arange(len(frames), device=frames.device), :, corner[:, 0], corner[:, 1]]
    return rearrange(chosen, "b o c h w -> b o h w c")


def relight(frames: Tensor, light: Tensor) -> Tensor:
    """Frames (B, O, h, w, 3) of 0..1 with their brightness, contrast and saturation changed, in this order."""
    brightness, contrast, saturation = light.to(frames)[:, :, None, None, None, None].unbind(dim=1)
    luma = torch.tensor(_LUMA, device=frames.device, dtype=frames.dtype)
    frames = (frames * brightness).clamp(0, 1)
    grey = (frames @ luma).mean(dim=(2, 3))[:, :, None, None, None]  # of each frame
    frames = (grey + contrast * (frames - grey)).clamp(0, 1)
    own = (frames @ luma)[..., None]  # of each pixel
    return (own + saturation * (frames - own)).clamp(0, 1)


def in_frame(points: Tensor, corner: Tensor, size: tuple[int, int], frame: tuple[int, int]) -> Tensor:
    """Points (B, ..., 2), x and y in -1..1 of a crop, as x and y in -1..1 of the frame it was cut from.

    The outermost pixels of each stand at -1 and 1. What is seen then lies where it is, whatever the crop.
    """
    whole = torch.tensor([frame[1] - 1, frame[0] - 1]).to(points).clamp_min(1)
    part = torch.tensor([size[1] - 1, size[0] - 1]).to(points)
    first = corner.flip(1).to(points).view(len(points), *[1] * (points.ndim - 2), 2)
    return (2 * first + (points + 1) * part) / whole - 1
