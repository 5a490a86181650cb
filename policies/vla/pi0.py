"""The published pi0 (arXiv 2410.24164): `lerobot/pi0_base` and what was fine-tuned from it, from a local folder.

PaliGemma (SigLIP So400m/14 and Gemma) with an expert of Gemma's kind. Words are multiplied by the root of their width,
images are not, as in openpi.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.errors import ConfigError
from ...data.normalizer import Normalizer
from ...data.spec import Spec
from ..chunk import ChunkConfig
from ..sampling import FlowEuler
from .config import VLAConfig
from .layout import Layout, Sizes
from .policy import VLAPolicy
from .pretrained import assemble, normalizer_of, read_config, read_weights, spec_of
from .streams import StreamsConfig
from .text import HuggingFaceConfig
from .vision import SiglipConfig

_BASE = "paligemma_with_expert.paligemma"
_TIED = f"{_BASE}.lm_head.weight"  # the embedding of words under another name
_LAYOUT = Layout(
    vision=f"{_BASE}.model.vision_tower.vision_model",
    connector=f"{_BASE}.model.multi_modal_projector.linear",
    text=f"{_BASE}.model.language_model",
    expert="paligemma_with_expert.gemma_expert.model",
    unused=(
        _TIED,
        f"{_BASE}.model.language_model.norm.weight",
        "paligemma_with_expert.gemma_expert.lm_head.weight",
    ),
)
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
        SpecError: if the spec has no images, no instruction or no numbers.
    """
    folder = Path(folder)
    values = read_config(folder, "pi0")
    found, statistics = read_weights(folder)
    weights = {_renamed(name): tensor for name, tensor in found.items()}
    if _TIED in weights:
        weights.setdefault(_LAYOUT.words, weights[_TIED])
    spec = spec or spec_of(values, control_hz)
    config = _config(values, Sizes(weights, _LAYOUT, folder), Path(tokenizer), tuple(spec.observation))
    spec = config.chunk.apply(spec)
    normalizer = normalizer or normalizer_of(folder, values, spec, statistics)
    return assemble(config, spec, normalizer, weights, _LAYOUT, folder)


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _config(values: Mapping[str, Any], sizes: Sizes, tokenizer: Path, keys: tuple[str, ...]) -> VLAConfig:
    return VLAConfig(
        chunk=ChunkConfig(
            observation=keys,
            observation_steps=1,
            horizon=values["chunk_size"],
            execute=values["n_action_steps"],
        ),
        vision=_vision(values, sizes),
        text=HuggingFaceConfig(
            folder=str(tokenizer), vocabulary=sizes.vocabulary, length=values.get("tokenizer_max_length", 48)
        ),
        streams=_streams(sizes),
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


def _vision(values: Mapping[str, Any], sizes: Sizes) -> SiglipConfig:
    vision = SiglipConfig(**sizes.vision, heads=_VISION_HEADS)
    if tuple(values.get("image_resolution", (224, 224))) != (vision.size, vision.size):
        raise ConfigError(
            f"image_resolution {values.get('image_resolution', (224, 224))} must be the {vision.size} px of the vision model"
        )
    return vision


def _streams(sizes: Sizes) -> StreamsConfig:
    head_width = sizes.keys // _GROUPS
    return StreamsConfig(
        **sizes.streams, heads=sizes.queries // head_width, groups=_GROUPS, head_width=head_width
    )
