"""Camera pictures made to fit what a remote policy was trained on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.errors import SpecError


def resize_with_pad(picture: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 scaled bilinearly to fit (height, width), centred on black.

    The same pixels as openpi's client makes (packages/openpi-client, image_tools.py): sizes are rounded down, an odd
    remainder of the padding goes to the right and to the bottom.
    """
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise SpecError(f"a picture must be uint8 of shape (H, W, 3), got {picture.dtype} {picture.shape}")
    rows, columns = picture.shape[:2]
    if (rows, columns) == (height, width):
        return picture
    ratio = max(columns / width, rows / height)
    inside = max(1, int(columns / ratio)), max(1, int(rows / ratio))  # PIL counts width first
    scaled = np.asarray(Image.fromarray(picture).resize(inside, resample=Image.Resampling.BILINEAR))
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - inside[1]) // 2, (width - inside[0]) // 2
    padded[top : top + inside[1], left : left + inside[0]] = scaled
    return padded
