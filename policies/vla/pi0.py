"""The published pi0 (arXiv 2410.24164): `lerobot/pi0_base` and what was fine-tuned from it, from a local folder.

PaliGemma (SigLIP So400m/14 and Gemma) with an expert of Gemma's kind. Words are multiplied by the root of their width,
images are not, as in openpi.
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
    read_weights,
    shape_of,
    spec_of,
    stream_names,
    vision_names,
)
from .streams import StreamsConfig
from .text import HuggingFaceConfig
from .vision import SiglipConfig

_BASE = "paligemma_with_expert.paligemma"
_VISION, _TEXT = f"{_BASE}.model.vision_tower.vision_model", f"{_BASE}.model.language_model"
_CONNECTOR, _EXPERT = (
    f"{_BASE}.model.multi_modal_projector.linear",
    "paligemma_with_expert.gemma_expert.model",
)
_WORDS, _TIED = f"{_TEXT}.embed_tokens.weight", f"{_BASE}.lm_head.weight"  # one tensor under two names
_UNUSED = (_TIED, f"{_TEXT}.norm.weight", "paligemma_with_expert.gemma_expert.lm_head.weight")
_VISION_HEADS, _GROUPS = 16, 1  # of SigLIP So400m, and of both of openpi's sizes of Gemma
_RENAMED = {  # older spellings, of files written before transformers 4.52 and of openpi's converter
    f"{_BASE}.vision_tower.": f"{_BASE}.model.vision_tower.",
    f"{_BASE}.multi_modal_projector.": f"{_BASE}.model.multi_modal_projector.",
    f"{_BASE}.language_model.model.": f"{_BASE}.model.language_model.",
    f"{_BASE}.language_model.lm_head.": f"{_BASE}.lm_head.",
    "time_mlp_in.": "action_time_mlp_in.",
    "time_mlp_out.": "action_time_mlp_out.",
}


def load_pi0(
    folder: Path | str,
    *,
    tokenizer: Path | str,
    control_hz: float | None = None,
    spec: Spec | None = None,
    normalizer: Normalizer | None = None,
) -> VLAPolicy:
    """Read a pi0.

    Args:
        folder: holds config.json and model.safetensors, as `lerobot/pi0_base` does.
        tokenizer: folder of PaliGemma's tokenizer, `google/paligemma-3b-pt-224`.
        control_hz: control steps per second, where no spec says it.
        spec: what your robot offers, with images in the order of the model's cameras; the model's own if not given.
            A camera that the model has and the robot has not is left out: its tokens would be masked.
        normalizer: statistics of your robot's numbers; those of the folder if not given.

    Raises:
        CheckpointError: if weights are missing, left over, or of another shape.
        NormalizerError: if no statistics come with the model and none are given.
    """
    folder = Path(folder)
    values = read_config(folder, "pi0")
    found, statistics = read_weights(folder)
    weights = {_renamed(name): tensor for name, tensor in found.items()}
    if _WORDS not in weights and _TIED in weights:
        weights[_WORDS] = weights[_TIED]
    spec = spec or spec_of(values, control_hz)
    config = _config(values, weights, Path(tokenizer), tuple(spec.observation), folder)
    spec = config.chunk.apply(spec)
    normalizer = normalizer or normalizer_of(folder, values, spec, statistics)
    assert isinstance(config.vision, SiglipConfig)
    names = {
        **vision_names(config.vision.layers, _VISION, _CONNECTOR, bias=True),
        "embedding.weight": _WORDS,
        **stream_names(config.streams.layers, "prefix", _TEXT),
        **stream_names(config.streams.layers, "expert", _EXPERT),
        "streams.norm.weight": f"{_EXPERT}.norm.weight",
        **projection_names(),
    }
    return assemble(config, spec, normalizer, weights, names, unused=_UNUSED, folder=folder)


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _config(
    values: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer: Path,
    keys: tuple[str, ...],
    folder: Path,
) -> VLAConfig:
    vocabulary, _ = shape_of(weights, _WORDS, folder)
    return VLAConfig(
        chunk=ChunkConfig(
            observation=keys,
            observation_steps=1,
            horizon=values["chunk_size"],
            execute=values["n_action_steps"],
        ),
        vision=_vision(values, weights, folder),
        text=HuggingFaceConfig(
            folder=str(tokenizer), vocabulary=vocabulary, length=values.get("tokenizer_max_length", 48)
        ),
        streams=_streams(weights, folder),
        mask="pi0",
        state="suffix",
        fusion="concat",
        sampler=FlowEuler(steps=values.get("num_inference_steps", 10)),
        mask_loss=True,
        state_width=values.get("max_state_dim", 32),
        action_width=values.get("max_action_dim", 32),
        scaled_text=True,
        frozen=values.get("train_expert_only", False),
    )


def _vision(values: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path) -> SiglipConfig:
    width, _, patch, _ = shape_of(weights, f"{_VISION}.embeddings.patch_embedding.weight", folder)
    positions, _ = shape_of(weights, f"{_VISION}.embeddings.position_embedding.weight", folder)
    hidden, _ = shape_of(weights, f"{_VISION}.encoder.layers.0.mlp.fc1.weight", folder)
    size = patch * round(positions**0.5)
    if tuple(values.get("image_resolution", (224, 224))) != (size, size):
        raise ConfigError(
            f"image_resolution {values['image_resolution']} must be the {size} px of the vision model"
        )
    layers = count_layers(weights, f"{_VISION}.encoder")
    return SiglipConfig(
        size=size, patch=patch, width=width, hidden=hidden, layers=layers, heads=_VISION_HEADS
    )


def _streams(weights: Mapping[str, Tensor], folder: Path) -> StreamsConfig:
    layers, expert_layers = count_layers(weights, _TEXT), count_layers(weights, _EXPERT)
    if layers != expert_layers:
        raise ConfigError(f"an expert of {expert_layers} layers beside a prefix of {layers} is not supported")
    queries, width = shape_of(weights, f"{_TEXT}.layers.0.self_attn.q_proj.weight", folder)
    keys, _ = shape_of(weights, f"{_TEXT}.layers.0.self_attn.k_proj.weight", folder)
    hidden, _ = shape_of(weights, f"{_TEXT}.layers.0.mlp.gate_proj.weight", folder)
    expert_hidden, expert_width = shape_of(weights, f"{_EXPERT}.layers.0.mlp.gate_proj.weight", folder)
    return StreamsConfig(
        layers=layers,
        heads=queries // (keys // _GROUPS),
        groups=_GROUPS,
        head_width=keys // _GROUPS,
        prefix_width=width,
        prefix_hidden=hidden,
        expert_width=expert_width,
        expert_hidden=expert_hidden,
    )
