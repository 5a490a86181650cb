import numpy as np
import pytest

from sensorimotor.data.errors import SpecError
from sensorimotor.policies.remote.image import resize_with_pad


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert resize_with_pad(picture, 24, 24) is picture


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((48, 64), slice(28, 196), slice(0, 224)), ((64, 48), slice(0, 224), slice(28, 196))],
)
def test_the_picture_fits_and_the_rest_is_black(shape: tuple[int, int], rows: slice, columns: slice) -> None:
    out = resize_with_pad(np.full((*shape, 3), 255, np.uint8), 224, 224)
    assert out.shape == (224, 224, 3)
    assert (out[rows, columns] == 255).all()
    assert int((out == 255).sum()) == 3 * 224 * 168


def test_an_odd_remainder_goes_right_and_down() -> None:
    out = resize_with_pad(
        np.full((10, 20, 3), 200, np.uint8), 9, 10
    )  # fits as 5 x 10: two rows above, two below
    assert [bool(row.any()) for row in out[:, 0]] == [False] * 2 + [True] * 5 + [False] * 2
    out = resize_with_pad(np.full((10, 20, 3), 200, np.uint8), 8, 10)  # three rows: one above, two below
    assert [bool(row.any()) for row in out[:, 0]] == [False] + [True] * 5 + [False] * 2


def test_colours_keep_their_order() -> None:
    out = resize_with_pad(np.tile(np.array([10, 20, 30], np.uint8), (6, 6, 1)), 12, 12)
    assert (out == [10, 20, 30]).all()


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(SpecError, match="a picture must be uint8"):
        resize_with_pad(picture, 2, 2)
