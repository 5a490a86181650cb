"""Crops and light: one per window, uniform, repeatable, and known to whoever measures where things are."""

import pytest
import torch

from sensorimotor.policies.crop import centre_view, crop, crop_size, in_frame, random_view, relight


def numbered(windows: int = 3, steps: int = 2, height: int = 6, width: int = 8) -> torch.Tensor:
    """Frames whose pixels say their row, column and step."""
    row = torch.arange(height)[:, None].expand(height, width)
    column = torch.arange(width)[None].expand(height, width)
    frames = torch.stack([row, column, torch.zeros_like(row)], dim=-1).to(torch.uint8)
    frames = frames.expand(windows, steps, height, width, 3).clone()
    frames[..., 2] = torch.arange(steps)[:, None, None]
    return frames


def test_76_of_84_pixels_are_kept() -> None:
    assert crop_size((84, 84), 76 / 84) == (76, 76)
    assert crop_size((96, 128), 0.5) == (48, 64)
    assert crop_size((84, 84), 1.0) == (84, 84)


def test_a_crop_begins_at_its_corner_and_is_the_same_for_all_frames_of_a_window() -> None:
    corner = torch.tensor([[0, 0], [2, 3], [1, 4]])
    seen = crop(numbered(), corner, (4, 4))
    assert seen.shape == (3, 2, 4, 4, 3)
    for window, (row, column) in enumerate(corner.tolist()):
        for step in range(2):
            assert seen[window, step, 0, 0].tolist() == [row, column, step]
            assert seen[window, step, 3, 3].tolist() == [row + 3, column + 3, step]


def test_the_centre_leaves_as_much_on_either_side() -> None:
    view = centre_view(2, (6, 8), (4, 4))
    assert view.corner.tolist() == [[1, 2], [1, 2]]
    assert view.light is None


def test_every_crop_that_fits_is_drawn_equally_often() -> None:
    view = random_view(6000, (6, 8), (4, 7), torch.Generator().manual_seed(0))
    counts = torch.bincount(view.corner[:, 0] * 2 + view.corner[:, 1], minlength=6)
    assert counts.sum() == 6000
    assert counts.min() > 900
    assert counts.max() < 1100


def test_views_are_the_generators() -> None:
    draw = lambda seed: random_view(5, (9, 9), (4, 4), torch.Generator().manual_seed(seed), jitter=0.3)  # noqa: E731
    first, again, other = draw(0), draw(0), draw(1)
    assert torch.equal(first.corner, again.corner)
    assert first.light is not None
    assert again.light is not None
    assert torch.equal(first.light, again.light)
    assert not torch.equal(first.corner, other.corner)
    assert first.light.min() >= 0.7
    assert first.light.max() <= 1.3


def test_what_lies_in_a_crop_lies_at_its_place_in_the_frame() -> None:
    """A 5 x 5 crop at row 1, column 3 of a frame of 9 x 13: its middle is row 3, column 5."""
    points = torch.tensor([[[0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]]])
    placed = in_frame(points, torch.tensor([[1, 3]]), (5, 5), (9, 13))
    pixels = (placed + 1) / 2 * torch.tensor([12.0, 8.0])
    torch.testing.assert_close(pixels[0], torch.tensor([[5.0, 3.0], [3.0, 1.0], [7.0, 5.0]]))


def test_the_whole_frame_leaves_points_where_they_are() -> None:
    points = torch.rand(4, 7, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    view = centre_view(4, (10, 12), (10, 12))
    torch.testing.assert_close(in_frame(points, view.corner, (10, 12), (10, 12)), points)


def test_light_of_one_changes_nothing() -> None:
    frames = torch.rand(2, 2, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(relight(frames, torch.ones(2, 3)), frames)


@pytest.mark.parametrize(
    ("light", "expected"),
    [
        ((0.5, 1.0, 1.0), [[0.3, 0.1, 0.2], [0.1, 0.3, 0.0]]),
        # Grey of the two pixels: 0.3374 and 0.4140, mean 0.3757; every colour moves half way to it.
        ((1.0, 0.5, 1.0), [[0.48785, 0.28785, 0.38785], [0.28785, 0.48785, 0.18785]]),
        # Without saturation each pixel is its own grey.
        ((1.0, 1.0, 0.0), [[0.3424] * 3, [0.412] * 3]),
    ],
)
def test_brightness_contrast_and_saturation(light: tuple[float, ...], expected: list[list[float]]) -> None:
    frames = torch.tensor([[0.6, 0.2, 0.4], [0.2, 0.6, 0.0]]).view(1, 1, 1, 2, 3)
    seen = relight(frames, torch.tensor([light]))[0, 0, 0]
    torch.testing.assert_close(seen, torch.tensor(expected), atol=2e-3, rtol=0)
