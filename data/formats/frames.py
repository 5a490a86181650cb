"""Camera frames out of video files and PNG bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one video file: those of one episode."""

    path: Path
    first: int
    count: int


def decode_clips(clips: Sequence[Clip], size: tuple[int, int] | None) -> Image:
    """All frames of all clips, (N, H, W, 3).

    Args:
        clips: in the order wanted; clips of one file must follow each other, earlier frames first.
        size: (H, W) to scale to while decoding, or None for the size recorded.
    """
    total = sum(clip.count for clip in clips)
    frames: Image | None = None
    filled = 0
    reader, current, position = iter(()), None, 0
    for clip in clips:
        if clip.path != current or clip.first < position:
            reader, current, position = _frames(clip.path, size), clip.path, 0
        for frame in reader:
            position += 1
            if position <= clip.first:
                continue
            if frames is None:
                frames = np.empty((total, *frame.shape), np.uint8)
            frames[filled] = frame
            filled += 1
            if position == clip.first + clip.count:
                break
        if position < clip.first + clip.count:
            raise DataError(
                f"{clip.path} ends after {position} frames, {clip.first + clip.count} are needed; "
                "copy it again, or read without images (images=False)"
            )
    if frames is None:
        raise DataError("there are no frames to decode")
    return frames


def _frames(path: Path, size: tuple[int, int] | None) -> Iterator[Image]:
    import imageio_ffmpeg

    scale = [] if size is None else ["-vf", f"scale={size[1]}:{size[0]}"]
    reader = imageio_ffmpeg.read_frames(path, output_params=scale)
    try:
        meta = next(reader)
        width, height = meta["size"] if size is None else (size[1], size[0])
        for data in reader:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, IndexError, StopIteration) as error:
        raise DataError(f"{path} cannot be decoded ({error}); copy it again") from error
    finally:
        reader.close()


def decode_png(images: Sequence[bytes]) -> Image:
    """Encoded still images as (N, H, W, 3)."""
    import imageio.v3 as iio

    return np.stack([np.asarray(iio.imread(data, plugin="pillow", mode="RGB")) for data in images])


def encode_png(image: Image) -> bytes:
    """One image, without loss."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", image, extension=".png", plugin="pillow")
