"""The published SmolVLA (arXiv 2506.01844): `lerobot/smolvla_base` and what was fine-tuned from it, from a local folder.

Its vision-language model is the lower half of SmolVLM2: SigLIP, patches joined 4 x 4, Llama layers. Its positions turn
with base 10000 whatever the language model was trained with, images and words are multiplied by the root of their
width, and every second expert layer reads the prefix alone.
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
from .pretrained import assemble, normalizer_of, read_config, read_json, read_weights, spec_of
from .streams import StreamsConfig
from .text import HuggingFaceConfig
from .vision import SiglipConfig

_VLM = "vlm_with_expert.vlm"
_LAYOUT = Layout(
    vision=f"{_VLM}.model.vision_model",
    connector=f"{_VLM}.model.connector.modality_projection.proj",
    text=f"{_VLM}.model.text_model",
    expert="vlm_with_expert.lm_expert",
    # what would turn the prefix into words
    unused=(f"{_VLM}.lm_head.weight", f"{_VLM}.model.text_model.norm.weight"),
)
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
        SpecError: if the spec has no images, no instruction or no numbers.
    """
    folder, vlm = Path(folder), Path(vlm)
    values = read_config(folder, "smolvla")
    _check(values)
    weights, statistics = read_weights(folder)
    spec = spec or spec_of(values, control_hz)
    config = _config(values, Sizes(weights, _LAYOUT, folder), vlm, tuple(spec.observation))
    spec = config.chunk.apply(spec)
    normalizer = normalizer or normalizer_of(folder, values, spec, statistics)
    return assemble(config, spec, normalizer, weights, _LAYOUT, folder)


def _check(values: Mapping[str, Any]) -> None:
    """Raise for variants that change what the network computes and are not built here."""
    known: dict[str, tuple[Any, ...]] = {
        "add_image_special_tokens": (False,),
        "adapt_to_pi_aloha": (False,),
        "n_obs_steps": (1,),
        "attention_mode": ("cross_attn", "self_attn"),
    }
    for name, allowed in known.items():
        if values.get(name, allowed[0]) not in allowed:
            raise ConfigError(
                f"SmolVLA with {name}={values[name]!r} is not supported; {name} may be {allowed}"
            )


def _config(values: Mapping[str, Any], sizes: Sizes, vlm: Path, keys: tuple[str, ...]) -> VLAConfig:
    described = read_json(vlm / "config.json") if (vlm / "config.json").is_file() else {}
    return VLAConfig(
        chunk=ChunkConfig(
            observation=keys,
            observation_steps=1,
            horizon=values["chunk_size"],
            execute=values["n_action_steps"],
        ),
        vision=_vision(values, sizes, described.get("vision_config", {})),
        text=HuggingFaceConfig(
            folder=str(vlm), vocabulary=sizes.vocabulary, length=values.get("tokenizer_max_length", 48)
        ),
        streams=_streams(values, sizes, described.get("text_config", {})),
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


def _vision(values: Mapping[str, Any], sizes: Sizes, described: Mapping[str, Any]) -> SiglipConfig:
    _, joined = sizes.of(f"{_LAYOUT.connector}.weight")
    vision = SiglipConfig(
        **sizes.vision,
        padding="left_top",
        heads=described.get("num_attention_heads", _VISION_HEADS),
        shuffle=round((joined / sizes.vision["width"]) ** 0.5),
        bias=False,
        scaled=True,
    )
    if tuple(values.get("resize_imgs_with_padding") or ()) != (vision.size, vision.size):
        raise ConfigError(
            f"resize_imgs_with_padding {values.get('resize_imgs_with_padding')} must be the {vision.size} px of the "
            "vision model"
        )
    return vision


def _streams(values: Mapping[str, Any], sizes: Sizes, described: Mapping[str, Any]) -> StreamsConfig:
    heads = described.get("num_attention_heads")
    head_width = described.get("head_dim") or (sizes.queries // heads if heads else _HEAD_WIDTH)
    every = values.get("self_attn_every_n_layers", 2) if values.get("attention_mode") != "self_attn" else 1
    return StreamsConfig(
        **sizes.streams,
        heads=sizes.queries // head_width,
        groups=sizes.keys // head_width,
        head_width=head_width,
        activation="silu",
        norm_offset=0.0,
        epsilon=described.get("rms_norm_eps", _EPSILON),
        joint_every=every,
    )
