"""Camera frames out of video files and PNG bytes, all at once or when they are asked for."""

import math
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..lazy import LazyArray, Recent

Image = NDArray[np.uint8]

_KEPT_BYTES = 64 << 20  # of decoded frames that a lazy array remembers
_AHEAD = 64  # frames that are decoded and dropped rather than starting the decoder anew


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


def _frames(path: Path, size: tuple[int, int] | None, after: float = 0.0) -> Generator[Image]:
    """Frames of a file from `after` seconds on."""
    import imageio_ffmpeg

    scale = [] if size is None else ["-vf", f"scale={size[1]}:{size[0]}"]
    skip = ["-ss", f"{after:.6f}"] if after else []
    reader = imageio_ffmpeg.read_frames(path, input_params=skip, output_params=scale)
    try:
        meta = next(reader)
        width, height = meta["size"] if size is None else (size[1], size[0])
        for data in reader:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, IndexError, StopIteration) as error:
        raise DataError(f"{path} cannot be decoded ({error}); copy it again") from error
    finally:
        reader.close()


def _frame_rate(path: Path) -> float:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(path)
    try:
        said = float(next(reader)["fps"])
    finally:
        reader.close()
    # ffmpeg rounds to hundredths, which after minutes of 24000 / 1001 Hz is another frame.
    television = round(said * 1.001) / 1.001
    return television if said != round(said) and abs(television - said) < 0.005 else said


class VideoRows(LazyArray):
    """The frames of several clips, end to end, decoded when they are asked for.

    The decoder goes on from where it is for frames a little further on, so that reading in order decodes each frame
    once. Frames drawn at random start it anew for nearly each of them: to train, convert the dataset to HDF5 first.
    """

    def __init__(self, clips: Sequence[Clip], size: tuple[int, int] | None) -> None:
        """Decode one frame, to know what they are like.

        Args:
            clips: in the order wanted.
            size: (H, W) to scale to while decoding, or None for the size recorded.
        """
        if not clips:
            raise DataError("there are no frames to decode")
        shape = decode_clips([Clip(clips[0].path, clips[0].first, 1)], size).shape
        super().__init__((sum(clip.count for clip in clips), *shape[1:]), np.dtype(np.uint8))
        self.clips, self.scaled = tuple(clips), size
        self.bounds = np.cumsum([0, *(clip.count for clip in clips)])
        self.rates: dict[Path, float] = {}  # frames per second of the files that were asked
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._recent = Recent(max(1, _KEPT_BYTES // math.prod(self.shape[1:])))
        self._decoder: Generator[Image] | None = None
        self._path: Path | None = None
        self._next = 0  # the frame of the file that the decoder gives next

    def read(self, rows: NDArray[np.int64]) -> Image:
        """Decoded frames."""
        if self._process != os.getpid():
            self._parents = self._decoder  # not closed here: that would stop the parent's decoder
            self._forget()
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, row in enumerate(rows.tolist()):
            frame = self._recent.get(row)
            if frame is None:
                clip_number = int(np.searchsorted(self.bounds, row, side="right")) - 1
                clip = self.clips[clip_number]
                frame = self._decode(clip.path, clip.first + row - int(self.bounds[clip_number]))
                self._recent.put(row, frame)
            found[place] = frame
        return found

    def _decode(self, path: Path, wanted: int) -> Image:
        if self._decoder is None or path != self._path or not 0 <= wanted - self._next <= _AHEAD:
            self.close()
            if wanted and path not in self.rates:
                self.rates[path] = _frame_rate(path)
            after = (wanted - 0.5) / self.rates[path] if wanted else 0.0
            self._decoder, self._path, self._next = _frames(path, self.scaled, after), path, wanted
        for frame in self._decoder:
            self._next += 1
            if self._next > wanted:
                return frame
        self.close()
        raise DataError(
            f"{path} ends before frame {wanted}; copy it again, or read without images (images=False)"
        )

    def close(self) -> None:
        """Stop the decoder; it is started again when frames are asked for."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the decoder and what it gave."""
        kept = ("clips", "scaled", "shape", "bounds", "rates")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of `__getstate__`, with nothing open."""
        for name, value in {**state, "dtype": np.dtype(np.uint8)}.items():
            setattr(self, name, value)
        self._forget()


class PngRows(LazyArray):
    """Encoded still images in memory, decoded when they are asked for."""

    def __init__(self, images: Sequence[bytes]) -> None:
        """Decode one image, to know what they are like."""
        super().__init__((len(images), *decode_png(images[:1]).shape[1:]), np.dtype(np.uint8))
        self.images = tuple(images)

    def read(self, rows: NDArray[np.int64]) -> Image:
        """Decoded images."""
        return decode_png([self.images[row] for row in rows.tolist()])


def decode_png(images: Sequence[bytes]) -> Image:
    """Encoded still images as (N, H, W, 3)."""
    import imageio.v3 as iio

    return np.stack([np.asarray(iio.imread(data, plugin="pillow", mode="RGB")) for data in images])


def encode_png(image: Image) -> bytes:
    """One image, without loss."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", image, extension=".png", plugin="pillow")
