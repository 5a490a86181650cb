"""Record worlds as MP4 files with a line of text on every frame."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .task import Task

Array = NDArray[Any]
_FRAME = 384  # px; a multiple of 16, which video encoders want
_BAR = 32


class Recorder:
    """Collects frames of the first few worlds of a wave and writes one file per world."""

    def __init__(self, folder: Path, *, worlds: int) -> None:
        """Record worlds 0..worlds-1 into `folder`."""
        self._folder = folder
        self._frames: list[list[NDArray[np.uint8]]] = [[] for _ in range(worlds)]
        self._hz = 10.0

    def add(self, task: Task, step: Array, coverage: Array, success: Array, alive: Array) -> None:
        """Draw one frame of every recorded world that is still running."""
        self._hz = task.spec.control_hz
        for world, frames in enumerate(self._frames):
            if alive[world]:
                text = f"step {step[world]:3d}   progress {100 * coverage[world]:5.1f} %"
                frames.append(caption(task.render(world, size=_FRAME), text, done=bool(success[world])))

    def close(self, seeds: Array) -> list[str]:
        """Write `<folder>/episode_<seed>.mp4` per world, the last frame held for a second; return the paths."""
        paths = []
        for world, frames in enumerate(self._frames):
            if frames:
                path = self._folder / f"episode_{seeds[world]}.mp4"
                write_video(path, [*frames, *[frames[-1]] * round(self._hz)], hz=self._hz)
                paths.append(str(path))
        return paths


def caption(frame: NDArray[np.uint8], text: str, *, done: bool) -> NDArray[np.uint8]:
    """The frame with a bar of text below it, green once the episode has succeeded."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width, height + _BAR), (38, 122, 74) if done else (32, 36, 42))
    canvas.paste(Image.fromarray(frame), (0, 0))
    label = f"{text}   success" if done else text
    ImageDraw.Draw(canvas).text(
        (10, height + 8), label, fill=(255, 255, 255), font=ImageFont.load_default(14)
    )
    return np.asarray(canvas)


def write_video(path: Path, frames: list[NDArray[np.uint8]], *, hz: float) -> None:
    """H.264 in MP4, playable in a browser."""
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    with imageio.get_writer(
        path, fps=hz, codec="libx264", macro_block_size=16, ffmpeg_log_level="error"
    ) as writer:
        for frame in frames:
            writer.append_data(frame)  # pyright: ignore[reportAttributeAccessIssue]
