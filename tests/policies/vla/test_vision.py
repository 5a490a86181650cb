"""Pictures to tokens: where black goes, which patches are joined, and the published vision transformer."""

import math

import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.vla.images import Padding, prepare
from sensorimotor.policies.vla.vision import PatchConfig, Siglip, SiglipConfig, build_vision, joined


def white(height: int, width: int) -> torch.Tensor:
    return torch.full((1, height, width, 3), 255, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("padding", "height", "width", "rows", "columns"),
    [
        ("left_top", 4, 8, range(4, 8), range(8)),
        ("left_top", 8, 4, range(8), range(4, 8)),
        ("both", 4, 8, range(2, 6), range(8)),
        ("both", 8, 4, range(8), range(2, 6)),
        ("both", 5, 8, range(1, 6), range(8)),  # the odd pixel goes below
        ("both", 8, 5, range(8), range(1, 6)),  # or to the right
        ("both", 8, 16, range(2, 6), range(8)),  # scaled as a whole
    ],
)
def test_black_goes_where_each_release_puts_it(
    padding: Padding, height: int, width: int, rows: range, columns: range
) -> None:
    seen = prepare(white(height, width), 8, padding)[0]
    expected = torch.full((3, 8, 8), -1.0)
    expected[:, rows.start : rows.stop, columns.start : columns.stop] = 1.0
    torch.testing.assert_close(seen, expected)


def test_bytes_become_minus_one_to_one() -> None:
    picture = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 2, 2, 3)
    assert prepare(picture, 2, "both")[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])


def test_neighbouring_patches_are_joined_row_by_row() -> None:
    """A square of 4 x 4 patches numbered in reading order, each of them two numbers."""
    tokens = torch.arange(16.0)[None, :, None] + torch.tensor([0.0, 0.5])
    found = joined(tokens, 2)
    assert found.shape == (1, 4, 8)
    assert found[0, :, ::2].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert joined(tokens, 1) is tokens


def test_the_vision_transformer_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    size = {"image_size": 12, "patch_size": 4, "hidden_size": 16, "intermediate_size": 20}
    torch.manual_seed(0)
    theirs = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**size, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    ours = build_vision(SiglipConfig(size=12, patch=4, width=16, hidden=20, layers=2, heads=2), 16)
    assert isinstance(ours, Siglip)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        copied = {
            name.removeprefix("vision_model.")
            .replace("embeddings.patch_embedding", "patches")
            .replace("embeddings.position_embedding.weight", "positions")
            .replace("encoder.", "")
            .replace("post_layernorm", "norm")
            .replace("layer_norm1", "norm_attention")
            .replace("layer_norm2", "norm_mlp")
            .replace("self_attn.out_proj", "o")
            .replace("self_attn.", "")
            .replace("_proj", "")
            .replace("mlp.fc1", "widen")
            .replace("mlp.fc2", "narrow"): value
            for name, value in theirs.state_dict().items()
            if ".head." not in name and not name.startswith("head.")
        }
        ours.load_state_dict(copied | {"connector.weight": torch.eye(16), "connector.bias": torch.zeros(16)})
        picture = torch.randint(0, 256, (2, 12, 12, 3), dtype=torch.uint8)
        expected = theirs(pixel_values=prepare(picture, 12, "both")).last_hidden_state
        torch.testing.assert_close(ours(picture), expected, atol=1e-5, rtol=1e-5)
        ours.scale = math.sqrt(16)
        torch.testing.assert_close(ours(picture), 4 * expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchConfig(size=30), "size must be a multiple of patch, got 30 and 8"),
        (lambda: PatchConfig(padding="right"), "padding must be left_top or both, got 'right'"),  # pyright: ignore
        (lambda: SiglipConfig(shuffle=3), "shuffle must divide the 16 patches of a side, got 3"),
        (lambda: SiglipConfig(heads=7), "width must be a multiple of heads"),
    ],
)
def test_impossible_sizes_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
