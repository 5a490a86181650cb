"""Frames of videos, decoded when they are asked for: those that decoding everything gives."""

import os
import pickle
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from sensorimotor.data.errors import DataError
from sensorimotor.data.formats import frames as frames_module
from sensorimotor.data.formats import load_dataset, save_dataset
from sensorimotor.data.formats.frames import Clip, PngRows, VideoRows, decode_clips, encode_png
from sensorimotor.data.lazy import is_lazy

Array = np.ndarray[Any, Any]


def moving(count: int, *, seed: int = 0) -> Array:
    """A bright square that moves over smooth colours, so that every frame differs from its neighbours."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 120, (4, 4, 3))
    frames = np.repeat(np.repeat(low, 16, axis=0), 16, axis=1)[None].repeat(count, axis=0).astype(np.uint8)
    for i, frame in enumerate(frames):
        column = (3 * i) % 52
        frame[20:32, column : column + 12] = 250
    return frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two ordinary H.264 files: frames that depend on later ones, and few that stand alone."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / "a.mp4", folder / "b.mp4"]
    for seed, path in enumerate(paths):
        options = ["-g", "30", "-bf", "2"]
        iio.imwrite(path, moving(90, seed=seed), fps=30, codec="libx264", output_params=options)
    return paths


def test_frames_at_random_are_those_of_decoding_in_order(videos: list[Path]) -> None:
    a, b = videos
    clips = [Clip(a, 5, 20), Clip(a, 40, 45), Clip(b, 0, 90)]
    whole = decode_clips(clips, None)
    lazy = VideoRows(clips, None)
    assert lazy.shape == whole.shape == (155, 64, 64, 3)
    order = np.random.default_rng(0).permutation(155)[:12]
    for row in order[:4]:
        np.testing.assert_array_equal(lazy[row], whole[row])
    np.testing.assert_array_equal(lazy[order.reshape(3, 4)], whole[order.reshape(3, 4)])


def test_reading_in_order_starts_the_decoder_once_per_file(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[float] = []
    inner = frames_module._frames

    def noted(path: Path, size: Any, after: float = 0.0) -> Any:
        started.append(after)
        return inner(path, size, after)

    lazy = VideoRows([Clip(videos[0], 0, 90), Clip(videos[1], 0, 90)], None)
    monkeypatch.setattr(frames_module, "_frames", noted)
    for start in range(0, 180, 12):
        assert lazy[start : start + 12].shape == (12, 64, 64, 3)
    assert started == [0, 0]
    assert lazy[170:180].shape == (10, 64, 64, 3)  # still remembered
    assert started == [0, 0]


@pytest.mark.parametrize(
    ("rate", "exact"), [("24000/1001", 24000 / 1001), ("30000/1001", 30000 / 1001), ("5", 5), ("14.3", 14.3)]
)
def test_rates_are_exact_enough_for_long_videos(tmp_path: Path, rate: str, exact: float) -> None:
    path = tmp_path / "a.mp4"
    iio.imwrite(path, moving(8), fps=30, codec="libx264", output_params=["-r", rate])
    assert frames_module._frame_rate(path) == pytest.approx(exact, rel=1e-12)


def test_frames_are_scaled_while_they_are_decoded(videos: list[Path]) -> None:
    clips = [Clip(videos[0], 0, 10)]
    np.testing.assert_array_equal(VideoRows(clips, (24, 32))[3:6], decode_clips(clips, (24, 32))[3:6])


def test_a_video_that_is_too_short_is_named(videos: list[Path]) -> None:
    lazy = VideoRows([Clip(videos[0], 0, 95)], None)
    with pytest.raises(DataError, match=r"a\.mp4 ends before frame 94"):
        lazy[94]


def test_no_clips_are_refused() -> None:
    with pytest.raises(DataError, match="no frames to decode"):
        VideoRows([], None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_decoding_goes_on_after_pickling_and_in_a_forked_process(videos: list[Path]) -> None:
    lazy = VideoRows([Clip(videos[0], 0, 90)], None)
    expected = decode_clips(lazy.clips, None)
    np.testing.assert_array_equal(lazy[10], expected[10])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[11], expected[11])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"1" if np.array_equal(lazy[12], expected[12]) else b"0")
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 1)
    os.close(reader)
    os.waitpid(child, 0)
    assert said == b"1"
    np.testing.assert_array_equal(lazy[13:90], expected[13:90])  # the child left the parent's decoder alone


def test_still_images_are_decoded_when_asked_for() -> None:
    frames = moving(5)
    lazy = PngRows([encode_png(frame) for frame in frames])
    np.testing.assert_array_equal(lazy[np.array([[4, 0], [4, 2]])], frames[[[4, 0], [4, 2]]])


def test_a_lerobot_set_of_ours_is_read_lazily(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from sensorimotor.data.episodes import Episodes
    from sensorimotor.data.spec import Field, Spec

    frames = moving(6)
    episodes = Episodes(
        spec=Spec(
            observation={"image.top": Field(shape=(64, 64, 3), dtype="uint8")},
            action=Field(shape=(1,)),
            control_hz=10,
        ),
        observation={"image.top": frames},
        action=np.zeros((6, 1), np.float32),
        ends=np.array([4, 6]),
    )
    save_dataset(episodes, tmp_path / "set", format="lerobot")
    lazy = load_dataset(tmp_path / "set", lazy_images=True)
    assert is_lazy(lazy.observation["image.top"])
    np.testing.assert_array_equal(lazy.observation["image.top"][:], frames)
    save_dataset(lazy, tmp_path / "set.hdf5")  # the way to train on a dataset of videos
    np.testing.assert_array_equal(load_dataset(tmp_path / "set.hdf5").observation["image.top"], frames)
