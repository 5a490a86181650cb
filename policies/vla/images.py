"""Pictures as the vision part of a policy wants them: square, in floating point from -1 to 1."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Padding = Literal["left_top", "both"]


def prepare(images: Tensor, size: int, padding: Padding) -> Tensor:
    """Pictures (N, H, W, 3) uint8 to (N, 3, size, size), scaled as a whole and filled up with black.

    Args:
        images: of any shape.
        size: px.
        padding: where black goes: `left_top` leaves the picture at the bottom right (SmolVLA), `both` centres it, an
            odd pixel to the right or below (openpi).
    """
    x = images.permute(0, 3, 1, 2).float() / 255.0
    height, width = x.shape[-2:]
    if (height, width) != (size, size):
        ratio = max(width / size, height / size)
        fitted = (max(1, int(height / ratio)), max(1, int(width / ratio)))
        x = F.interpolate(x, size=fitted, mode="bilinear", align_corners=False)
        x = F.pad(x, _margins(size - fitted[1], size - fitted[0], padding))
    return 2 * x - 1


def _margins(across: int, down: int, padding: Padding) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)."""
    if padding == "left_top":
        return across, 0, down, 0
    return across // 2, across - across // 2, down // 2, down - down // 2
