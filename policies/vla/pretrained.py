"""Published policies from a local folder in LeRobot's layout: config.json, model.safetensors and statistics.

Nothing is fetched and nothing in a folder is executed. Every weight of the file is either put in its place or known to
be without use; anything else raises.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...data.errors import CheckpointError, ConfigError, NormalizerError, SpecError
from ...data.formats.lerobot_info import our_key
from ...data.normalizer import Normalizer
from ...data.spec import Field, Spec
from .config import VLAConfig
from .layout import Layout
from .policy import VLAPolicy

_READ_BY = {"vision": "image", "embedding": "instruction", "state": "numbers"}  # by which part of a policy
_STD_FLOOR = 1e-8  # LeRobot adds it to every standard deviation
_LISTED = 10
_CONFIG, _WEIGHTS, _PROCESSOR = "config.json", "model.safetensors", "policy_preprocessor.json"
_NEEDED = ("input_features", "output_features", "chunk_size", "n_action_steps")  # of config.json
_LEGACY = (
    "normalize_inputs.",
    "normalize_targets.",
    "unnormalize_outputs.",
)  # statistics among older weights


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """`config.json` of a policy of this type."""
    config = read_json(folder / _CONFIG)
    if config.get("type") != kind:
        raise ConfigError(
            f"{folder / _CONFIG} describes a policy of type {config.get('type')!r}, not {kind!r}"
        )
    if missing := [name for name in _NEEDED if name not in config]:
        raise CheckpointError(
            f"{folder / _CONFIG} does not say {', '.join(missing)}; copy the whole folder of the model"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; copy the whole folder of the model") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights by name, without the prefix `model.`, and the statistics that older files keep among them."""
    tensors = _read_tensors(folder / _WEIGHTS)
    statistics = {name: tensor for name, tensor in tensors.items() if name.startswith(_LEGACY)}
    weights = {
        name.replace("_orig_mod.", "").removeprefix("model."): tensor
        for name, tensor in tensors.items()
        if name not in statistics
    }
    return weights, statistics


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; copy the whole folder of the model") from error


def spec_of(config: Mapping[str, Any], control_hz: float | None) -> Spec:
    """The spec that a `config.json` describes: its features by our names, and an instruction."""
    if control_hz is None:
        raise ConfigError("the file does not say how often the policy acts; give control_hz, or a spec")
    observation = {
        our_key(name, "image" if feature["type"] == "VISUAL" else ""): _field(feature)
        for name, feature in config["input_features"].items()
        if feature["type"] in ("VISUAL", "STATE", "ENV")
    }
    observation["instruction"] = Field(shape=(), dtype="str")
    action = Field(shape=tuple(config["output_features"]["action"]["shape"]))
    return Spec(observation=observation, action=action, control_hz=control_hz)


def _field(feature: Mapping[str, Any]) -> Field:
    shape = tuple(feature["shape"])
    return (
        Field(shape=(*shape[1:], shape[0]), dtype="uint8")
        if feature["type"] == "VISUAL"
        else Field(shape=shape)
    )


def normalizer_of(
    folder: Path, config: Mapping[str, Any], spec: Spec, legacy: Mapping[str, Tensor]
) -> Normalizer:
    """The statistics that came with a policy.

    Raises:
        NormalizerError: if there are none; published base models come without.
    """
    stored = {name: tensor.float() for name, tensor in _statistics(folder, legacy).items()}
    modes = config.get("normalization_mapping", {})
    numeric = [key for key, field in spec.observation.items() if not field.is_image and not field.is_text]
    theirs = {our_key(name, ""): name for name in config["input_features"]}
    fitted = {}
    for key in numeric:
        mode = modes.get("ENV" if key == "environment" else "STATE", "MEAN_STD")
        fitted[key] = _affine(mode, theirs.get(key, key), stored, spec.observation[key].size, folder)
    fitted["action"] = _affine(modes.get("ACTION", "MEAN_STD"), "action", stored, spec.action_dim, folder)
    return Normalizer(fitted)


def _statistics(folder: Path, legacy: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`<feature>.<statistic>` -> tensor, from the processor's file or from among the weights."""
    found: dict[str, Tensor] = {}
    for name, tensor in legacy.items():
        buffer, _, statistic = name.split("buffer_", 1)[-1].rpartition(".")
        found[f"{buffer.replace('observation_', 'observation.')}.{statistic}"] = tensor
    if (folder / _PROCESSOR).is_file():
        for step in read_json(folder / _PROCESSOR).get("steps", []):
            file = step.get("state_file")
            if step.get("registry_name") == "normalizer_processor" and file:
                found |= _read_tensors(folder / Path(file).name)
    return found


def _affine(
    mode: str, name: str, stored: Mapping[str, Tensor], width: int, folder: Path
) -> tuple[Tensor, Tensor]:
    def get(statistic: str) -> Tensor:
        value = stored.get(f"{name}.{statistic}")
        if value is None or not torch.isfinite(value).all() or value.shape != (width,):
            raise NormalizerError(
                f"{folder} brings no {statistic} of {name!r} for {width} numbers; fit the statistics to your data with "
                "fit_normalizer and pass them as normalizer="
            )
        return value

    match mode:
        case "IDENTITY":
            return torch.zeros(width), torch.ones(width)
        case "MEAN_STD":
            return get("mean"), get("std") + _STD_FLOOR
        case "MIN_MAX":
            low, high = get("min"), get("max")
        case "QUANTILES":
            low, high = get("q01"), get("q99")
        case _:
            raise NormalizerError(
                f"normalisation {mode!r} is not known; MEAN_STD, MIN_MAX, QUANTILES, IDENTITY are"
            )
    return (low + high) / 2, ((high - low) / 2).clamp_min(_STD_FLOOR)


def assemble(
    config: VLAConfig,
    spec: Spec,
    normalizer: Normalizer,
    weights: Mapping[str, Tensor],
    layout: Layout,
    folder: Path,
) -> VLAPolicy:
    """A policy with these weights, in float32, ready to sample.

    Args:
        config: what the file's configuration amounts to.
        spec: with the policy's window lengths.
        normalizer: of its numbers.
        weights: as in the file.
        layout: what they are called.
        folder: named in errors.

    Raises:
        CheckpointError: listing the weights that are missing, left over, or of another shape.
        SpecError: if the spec lacks what a part of the policy reads.
    """
    with torch.device("meta"):  # no random weights of billions of numbers, only to be replaced
        policy = VLAPolicy(config, spec, normalizer)
    names = layout.names(config)
    wanted = policy.state_dict()
    if unread := sorted({ours.split(".")[0] for ours in names if ours not in wanted}):
        kinds = ", ".join(_READ_BY[part] for part in unread)
        raise SpecError(
            f"a published policy reads images, an instruction and numbers, and the spec has no {kinds}; it has "
            f"{list(spec.observation)}"
        )
    missing = sorted(theirs for theirs in names.values() if theirs not in weights)
    left = sorted(set(weights) - set(names.values()) - set(layout.unused))
    if missing or left:
        raise CheckpointError(
            f"the weights in {folder} do not fit its configuration: missing {_some(missing)}; unexpected {_some(left)}"
        )
    shapes = [
        f"{theirs} {tuple(weights[theirs].shape)} for {tuple(wanted[ours].shape)}"
        for ours, theirs in names.items()
        if weights[theirs].shape != wanted[ours].shape
    ]
    if shapes:
        raise CheckpointError(
            f"weights in {folder} have other shapes than its configuration says: {_some(shapes)}"
        )
    placed = {name: tensor for name, tensor in wanted.items() if name.startswith("normalizer.")}
    placed |= {ours: weights[theirs].float() for ours, theirs in names.items()}
    policy.load_state_dict(placed, assign=True)
    return policy.eval()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: {', '.join(names[:_LISTED])}{more}" if names else "none"
