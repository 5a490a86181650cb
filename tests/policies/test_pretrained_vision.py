"""Backbones of transformers from a local folder, on tiny models made here."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.pretrained_vision import Preprocessing, PretrainedConfig, PretrainedVision
from sensorimotor.policies.vision import VisionConfig
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def folder_of(path: Path, kind: str) -> Path:
    """A tiny model with its preprocessing, as save_pretrained() leaves them."""
    torch.manual_seed(0)
    match kind:
        case "dinov2":
            size = {
                "do_center_crop": True,
                "crop_size": {"height": 28, "width": 28},
                "size": {"shortest_edge": 32},
            }
            model = transformers.Dinov2Model(transformers.Dinov2Config(**TINY, hidden_dropout_prob=0.5))
        case "siglip":
            size = {"size": {"height": 28, "width": 28}}
            model = transformers.SiglipVisionModel(
                transformers.SiglipVisionConfig(**TINY, intermediate_size=32)
            )
        case "siglip_pair":
            size = {"size": {"height": 28, "width": 28}}
            text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}
            config = transformers.SiglipConfig(
                text_config={**text, "intermediate_size": 32, "max_position_embeddings": 4},
                vision_config={**TINY, "intermediate_size": 32},
            )
            model = transformers.SiglipModel(config)
        case _:
            size = {"size": 32}
            config = transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
            )
            model = transformers.ResNetModel(config)
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({**size, "image_mean": MEAN, "image_std": STD}))
    return path


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("dinov2", (16, 4, 4)), ("siglip", (16, 4, 4)), ("siglip_pair", (16, 4, 4)), ("resnet", (16, 4, 4))],
)
def test_a_folder_becomes_a_map_of_patches(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    vision = PretrainedVision(PretrainedConfig(path=str(folder_of(tmp_path, kind))))
    assert vision.channels == 16
    assert vision(torch.rand(2, 3, 20, 24)).shape == (2, *shape)


def test_the_map_is_the_models_own_patches_of_the_image_as_it_wants_it(tmp_path: Path) -> None:
    """At the trained size nothing is resized; DINOv2's first token is no patch."""
    vision = PretrainedVision(PretrainedConfig(path=str(folder_of(tmp_path, "dinov2"))))
    model = transformers.Dinov2Model.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 3, 28, 28)
    scaled = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        tokens = model(pixel_values=scaled).last_hidden_state
    assert tokens.shape == (2, 17, 16)
    torch.testing.assert_close(vision(images).flatten(2).transpose(1, 2), tokens[:, 1:], atol=1e-5, rtol=1e-5)


def test_frozen_weights_stay_and_others_learn(tmp_path: Path) -> None:
    path = str(folder_of(tmp_path, "dinov2"))
    images = torch.rand(2, 3, 28, 28)
    frozen = PretrainedVision(PretrainedConfig(path=path))
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen(images).requires_grad
    tuned = PretrainedVision(PretrainedConfig(path=path, frozen=False))
    tuned(images).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tuned.parameters())


def test_nothing_is_dropped_out_of_a_frozen_backbone(tmp_path: Path) -> None:
    path = str(folder_of(tmp_path, "dinov2"))
    images = torch.rand(2, 3, 28, 28)
    frozen, tuned = (PretrainedVision(PretrainedConfig(path=path, frozen=f)).train() for f in (True, False))
    assert torch.equal(frozen(images), frozen(images))
    assert not torch.equal(tuned(images), tuned(images))


def test_batch_statistics_of_a_tuned_backbone_stay_as_they_came(tmp_path: Path) -> None:
    tuned = PretrainedVision(PretrainedConfig(path=str(folder_of(tmp_path, "resnet")), frozen=False)).train()
    images = torch.rand(4, 3, 32, 32)
    before = {name: value.clone() for name, value in tuned.named_buffers()}
    torch.testing.assert_close(tuned(images)[:1], tuned(images[:1]), atol=1e-5, rtol=1e-5)
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(value, before[name]) for name, value in tuned.named_buffers())


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"crop_size": {"height": 224, "width": 200}, "size": {"shortest_edge": 256}}, (224, 200)),
        ({"crop_size": 224, "do_center_crop": False, "size": {"shortest_edge": 256}}, (256, 256)),
        ({"size": {"height": 384, "width": 384}}, (384, 384)),
        ({"size": 96}, (96, 96)),
    ],
)
def test_the_size_is_what_the_preprocessor_ends_with(
    tmp_path: Path, values: dict, size: tuple[int, int]
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**values, "image_mean": MEAN, "image_std": STD})
    )
    assert Preprocessing.read(tmp_path) == Preprocessing(size, tuple(MEAN), tuple(STD))


def test_a_policy_with_a_backbone_learns_around_it_and_is_loaded_as_it_was_saved(
    tmp_path: Path, make_episodes: Callable
) -> None:
    episodes = make_episodes(steps=(5, 4))
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    spec = replace(episodes.spec, observation={"image.a": Field(shape=(32, 32, 3), dtype="uint8")})
    episodes = replace(episodes, spec=spec, observation={"image.a": frames})
    config = FlowConfig(
        chunk=ChunkConfig(observation=("image.a",), observation_steps=1, horizon=4, execute=2),
        trunk=MLPConfig(width=16, depth=1, step_width=8),
        vision=VisionConfig(
            encoder=PretrainedConfig(path=str(folder_of(tmp_path / "net", "dinov2"))), features=4
        ),
    )
    policy = make_policy(config, episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(9))
    policy(batch, torch.Generator().manual_seed(0)).backward()
    learned = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert learned
    assert not any(".backbone." in name for name in learned)
    save_checkpoint(
        tmp_path / "saved",
        lambda where: describe(policy, where),
        lambda where: save_weights(policy, where / MODEL),
    )
    assert torch.equal(load(tmp_path / "saved").sample(batch.observation), policy.sample(batch.observation))


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the folder of a pretrained model: no config\.json"):
        PretrainedVision(PretrainedConfig(path=str(tmp_path)))


def test_missing_preprocessing_is_asked_for(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "siglip")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no preprocessor_config\.json"):
        PretrainedVision(PretrainedConfig(path=str(path)))


def test_preprocessing_that_says_too_little_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}}')
    with pytest.raises(ConfigError, match=r"does not say .*image_mean"):
        Preprocessing.read(tmp_path)


def test_a_model_that_reads_no_images_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 8, "image_mean": MEAN, "image_std": STD})
    )
    with pytest.raises(ConfigError, match="BertModel, which reads no images"):
        PretrainedVision(PretrainedConfig(path=str(tmp_path)))


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "siglip")
    (path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be read as a model of transformers"):
        PretrainedVision(PretrainedConfig(path=str(path)))


def test_absent_transformers_are_named_with_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_of(tmp_path, "siglip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'"sensorimotor\[vision\]"'):
        PretrainedVision(PretrainedConfig(path=str(path)))


def test_no_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="path must name the folder"):
        PretrainedConfig(path="")
