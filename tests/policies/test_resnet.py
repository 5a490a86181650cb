"""ResNet-18 as published, but for its normalisation; and a ViT beside it."""

import pytest
import torch
from torch import nn

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.resnet import ResNet, ResNetConfig
from sensorimotor.policies.vit import ViT, ViTConfig

TINY = ResNetConfig(width=8, blocks=(1, 1))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_resnet_18_has_the_published_parameters_without_its_classifier() -> None:
    """11,689,512 in all, of which the classifier has 512 * 1000 + 1000."""
    assert count(ResNet(ResNetConfig())) == 11_689_512 - 513_000


def test_channels_are_normalised_in_groups_of_sixteen_and_nothing_over_the_batch() -> None:
    net = ResNet(ResNetConfig())
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(norm.num_groups == norm.num_channels // 16 for norm in norms)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_a_frame_is_seen_alike_whatever_is_beside_it() -> None:
    torch.manual_seed(0)
    net = ResNet(TINY)
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(net(images)[2:3], net(images[2:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("blocks", "side"), [((1,), 19), ((1, 1), 10), ((2, 1, 1), 5), ((1, 1, 1, 1), 3)])
def test_every_stage_but_the_first_halves_the_map(blocks: tuple[int, ...], side: int) -> None:
    net = ResNet(ResNetConfig(width=8, blocks=blocks))
    assert net.channels == 8 * 2 ** (len(blocks) - 1)
    assert net(torch.zeros(1, 3, 76, 76)).shape == (1, net.channels, side, side)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 40}, "width must be at most 16 or a multiple of it, got 40"),
        ({"width": 0}, "width must be"),
        ({"blocks": ()}, "blocks must name at least 1"),
        ({"blocks": (2, 0)}, "blocks must name at least 1"),
        ({"group": 0}, "group must be at least 1"),
    ],
)
def test_impossible_networks_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNetConfig(**wrong)


def test_tokens_of_a_vit_stand_where_their_patches_are() -> None:
    """Without blocks, a token sees its own patch only."""
    torch.manual_seed(0)
    net = ViT(ViTConfig(patch=4, width=8, layers=1, heads=2), (8, 12))
    net.blocks = nn.ModuleList()
    image = torch.rand(1, 3, 8, 12)
    changed = image.clone()
    changed[..., 4:, :4] += 1.0  # the patch of row 1, column 0
    moved = (net(changed) - net(image)).abs().amax(dim=1)[0] > 1e-6
    assert moved.tolist() == [[False, False, False], [True, False, False]]


def test_a_vit_reads_images_of_one_size_in_whole_patches() -> None:
    with pytest.raises(ConfigError, match=r"patches of 8 px, and 87 x 87 px.*vision\.crop"):
        ViT(ViTConfig(), (87, 87))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "width must be a multiple of heads, got 128 and 3"),
        ({"patch": 0}, "patch must be at least 1"),
    ],
)
def test_impossible_vits_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTConfig(**wrong)
