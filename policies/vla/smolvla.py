"""The published SmolVLA (arXiv 2506.01844): `lerobot/smolvla_base` and what was fine-tuned from it, from a local folder.

Its vision-language model is the lower half of SmolVLM2: SigLIP, patches joined 4 x 4, Llama layers. Its positions turn
with base 10000 whatever the language model was trained with, images and words are multiplied by the root of their
width, and every second expert layer reads the prefix alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.errors import ConfigError
from ...data.normalizer import Normalizer
from ...data.spec import Spec
from ..chunk import ChunkConfig
from ..sampling import FlowEuler
from .config import VLAConfig
from .policy import VLAPolicy
from .pretrained import (
    assemble,
    count_layers,
    normalizer_of,
    projection_names,
    read_config,
    read_json,
    read_weights,
    shape_of,
    spec_of,
    stream_names,
    vision_names,
)
from .streams import StreamsConfig
from .text import HuggingFaceConfig
from .vision import SiglipConfig

_VLM = "vlm_with_expert.vlm"
_VISION, _TEXT = f"{_VLM}.model.vision_model", f"{_VLM}.model.text_model"
_CONNECTOR, _EXPERT = f"{_VLM}.model.connector.modality_projection.proj", "vlm_with_expert.lm_expert"
_UNUSED = (f"{_VLM}.lm_head.weight", f"{_TEXT}.norm.weight")  # what would turn the prefix into words
_HEAD_WIDTH, _VISION_HEADS, _EPSILON = 64, 12, 1e-5  # SmolVLM2-500M, where its folder does not say


def load_smolvla(
    folder: Path | str,
    *,
    vlm: Path | str,
    control_hz: float | None = None,
    spec: Spec | None = None,
    normalizer: Normalizer | None = None,
) -> VLAPolicy:
    """Read a SmolVLA.

    Args:
        folder: holds config.json and model.safetensors, as `lerobot/smolvla_base` does.
        vlm: folder of the vision-language model it was made from, `HuggingFaceTB/SmolVLM2-500M-Video-Instruct`: its
            tokenizer, and its config.json for the number of heads. No weights are read from it.
        control_hz: control steps per second, where no spec says it.
        spec: what your robot offers, with images in the order of the model's cameras; the model's own if not given.
            A camera that the model has and the robot has not is left out: its tokens would be masked.
        normalizer: statistics of your robot's numbers; those of the folder if not given.

    Raises:
        CheckpointError: if weights are missing, left over, or of another shape.
        ConfigError: for a variant of the architecture that is not known.
        NormalizerError: if no statistics come with the model and none are given.
    """
    folder, vlm = Path(folder), Path(vlm)
    values = read_config(folder, "smolvla")
    _check(values)
    weights, statistics = read_weights(folder)
    spec = spec or spec_of(values, control_hz)
    config = _config(values, weights, vlm, tuple(spec.observation), folder)
    spec = config.chunk.apply(spec)
    normalizer = normalizer or normalizer_of(folder, values, spec, statistics)
    assert isinstance(config.vision, SiglipConfig)
    names = {
        **vision_names(config.vision.layers, _VISION, _CONNECTOR, bias=False),
        "embedding.weight": f"{_TEXT}.embed_tokens.weight",
        **stream_names(config.streams.layers, "prefix", _TEXT),
        **stream_names(config.streams.layers, "expert", _EXPERT),
        "streams.norm.weight": f"{_EXPERT}.norm.weight",
        **projection_names(),
    }
    return assemble(config, spec, normalizer, weights, names, unused=_UNUSED, folder=folder)


def _check(values: Mapping[str, Any]) -> None:
    """Raise for variants that change what the network computes and are not built here."""
    known = {"add_image_special_tokens": (False,), "adapt_to_pi_aloha": (False,), "n_obs_steps": (1,)}
    known["attention_mode"] = ("cross_attn", "self_attn")  # pyright: ignore[reportArgumentType]
    for name, allowed in known.items():
        if values.get(name, allowed[0]) not in allowed:
            raise ConfigError(
                f"SmolVLA with {name}={values[name]!r} is not supported; {name} may be {allowed}"
            )


def _config(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], vlm: Path, keys: tuple[str, ...], folder: Path
) -> VLAConfig:
    described = read_json(vlm / "config.json") if (vlm / "config.json").is_file() else {}
    vocabulary, _ = shape_of(weights, f"{_TEXT}.embed_tokens.weight", folder)
    return VLAConfig(
        chunk=ChunkConfig(
            observation=keys,
            observation_steps=1,
            horizon=values["chunk_size"],
            execute=values["n_action_steps"],
        ),
        vision=_vision(values, weights, described.get("vision_config", {}), folder),
        text=HuggingFaceConfig(
            folder=str(vlm), vocabulary=vocabulary, length=values.get("tokenizer_max_length", 48)
        ),
        streams=_streams(values, weights, described.get("text_config", {}), folder),
        mask="smolvla",
        state="prefix",
        fusion="concat",
        sampler=FlowEuler(steps=values.get("num_steps", 10)),
        mask_loss=True,
        state_width=values.get("max_state_dim", 32),
        action_width=values.get("max_action_dim", 32),
        scaled_text=True,
        frozen=values.get("train_expert_only", True),
    )


def _vision(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], described: Mapping[str, Any], folder: Path
) -> SiglipConfig:
    width, _, patch, _ = shape_of(weights, f"{_VISION}.embeddings.patch_embedding.weight", folder)
    positions, _ = shape_of(weights, f"{_VISION}.embeddings.position_embedding.weight", folder)
    hidden, _ = shape_of(weights, f"{_VISION}.encoder.layers.0.mlp.fc1.weight", folder)
    _, joined = shape_of(weights, f"{_CONNECTOR}.weight", folder)
    size = patch * round(positions**0.5)
    if tuple(values.get("resize_imgs_with_padding") or ()) != (size, size):
        raise ConfigError(
            f"resize_imgs_with_padding {values.get('resize_imgs_with_padding')} must be the {size} px of the vision model"
        )
    return SiglipConfig(
        size=size,
        patch=patch,
        padding="left_top",
        width=width,
        hidden=hidden,
        layers=count_layers(weights, f"{_VISION}.encoder"),
        heads=described.get("num_attention_heads", _VISION_HEADS),
        shuffle=round((joined / width) ** 0.5),
        bias=False,
        scaled=True,
    )


def _streams(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], described: Mapping[str, Any], folder: Path
) -> StreamsConfig:
    layers, expert_layers = count_layers(weights, _TEXT), count_layers(weights, _EXPERT)
    if layers != expert_layers:
        raise ConfigError(f"an expert of {expert_layers} layers beside a prefix of {layers} is not supported")
    queries, width = shape_of(weights, f"{_TEXT}.layers.0.self_attn.q_proj.weight", folder)
    keys, _ = shape_of(weights, f"{_TEXT}.layers.0.self_attn.k_proj.weight", folder)
    hidden, _ = shape_of(weights, f"{_TEXT}.layers.0.mlp.gate_proj.weight", folder)
    expert_hidden, expert_width = shape_of(weights, f"{_EXPERT}.layers.0.mlp.gate_proj.weight", folder)
    heads = described.get("num_attention_heads")
    head_width = described.get("head_dim") or (queries // heads if heads else _HEAD_WIDTH)
    every = values.get("self_attn_every_n_layers", 2) if values.get("attention_mode") != "self_attn" else 1
    return StreamsConfig(
        layers=layers,
        heads=queries // head_width,
        groups=keys // head_width,
        head_width=head_width,
        prefix_width=width,
        prefix_hidden=hidden,
        expert_width=expert_width,
        expert_hidden=expert_hidden,
        activation="silu",
        norm_offset=0.0,
        epsilon=described.get("rms_norm_eps", _EPSILON),
        joint_every=every,
    )
