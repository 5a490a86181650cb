"""Where a published model keeps its weights, and what their shapes say about its size.

Such a model is a SigLIP vision transformer, a connector, a language model and an expert of the same depth; models differ
in where these lie, and in what no weight's shape tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.errors import CheckpointError, ConfigError
from .config import VLAConfig
from .vision import SiglipConfig

_PROJECTIONS = {
    "state": "state_proj",
    "expert.action_in": "action_in_proj",
    "expert.action_out": "action_out_proj",
    "expert.time_in": "action_time_mlp_in",
    "expert.time_out": "action_time_mlp_out",
}
_VISION_LAYER = {
    "norm_attention": "layer_norm1",
    "norm_mlp": "layer_norm2",
    "widen": "mlp.fc1",
    "narrow": "mlp.fc2",
    "o": "self_attn.out_proj",
    **{part: f"self_attn.{part}_proj" for part in "qkv"},
}
_STREAM_LAYER = {
    "norm_attention": "input_layernorm",
    "norm_mlp": "post_attention_layernorm",
    **{part: f"self_attn.{part}_proj" for part in "qkvo"},
    **{f"mlp.{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}


@dataclass(frozen=True)
class Layout:
    """What the weights of a file are called.

    Attributes:
        vision: prefix of the vision transformer.
        connector: the layer from its tokens to the language model's.
        text: prefix of the language model.
        expert: prefix of the action expert.
        unused: weights that the file may hold and the policy has no use for.
    """

    vision: str
    connector: str
    text: str
    expert: str
    unused: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The embedding of words."""
        return f"{self.text}.embed_tokens.weight"

    def names(self, config: VLAConfig) -> dict[str, str]:
        """Our parameter -> the file's."""
        assert isinstance(config.vision, SiglipConfig)
        ours = {
            "vision.positions": f"{self.vision}.embeddings.position_embedding.weight",
            "vision.connector.weight": f"{self.connector}.weight",
            "embedding.weight": self.words,
            "streams.norm.weight": f"{self.expert}.norm.weight",
        }
        if config.vision.bias:
            ours["vision.connector.bias"] = f"{self.connector}.bias"
        for kind in ("weight", "bias"):
            ours[f"vision.patches.{kind}"] = f"{self.vision}.embeddings.patch_embedding.{kind}"
            ours[f"vision.norm.{kind}"] = f"{self.vision}.post_layernorm.{kind}"
            ours |= {f"{mine}.{kind}": f"{theirs}.{kind}" for mine, theirs in _PROJECTIONS.items()}
            for i in range(config.vision.layers):
                for mine, theirs in _VISION_LAYER.items():
                    ours[f"vision.layers.{i}.{mine}.{kind}"] = (
                        f"{self.vision}.encoder.layers.{i}.{theirs}.{kind}"
                    )
        for stream, prefix in (("prefix", self.text), ("expert", self.expert)):
            for i in range(config.streams.layers):
                for mine, theirs in _STREAM_LAYER.items():
                    ours[f"streams.{stream}.{i}.{mine}.weight"] = f"{prefix}.layers.{i}.{theirs}.weight"
        return ours


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a file's weights say.

    Attributes:
        weights: of the file.
        layout: what they are called.
        folder: named in errors.
    """

    weights: Mapping[str, Tensor]
    layout: Layout
    folder: Path

    def of(self, name: str) -> tuple[int, ...]:
        """The shape of a weight that every file of the kind holds.

        Raises:
            CheckpointError: if it is not there.
        """
        if name not in self.weights:
            close = [other for other in self.weights if other.split(".")[-2:] == name.split(".")[-2:]]
            hint = f"; it has {close[0]!r}" if close else ""
            raise CheckpointError(
                f"the weights in {self.folder} lack {name!r}{hint}; is it a model of this kind?"
            )
        return tuple(self.weights[name].shape)

    @property
    def vocabulary(self) -> int:
        """Words that the embedding knows."""
        return self.of(self.layout.words)[0]

    @cached_property
    def vision(self) -> dict[str, Any]:
        """`SiglipConfig`: width, hidden, layers, patch and size."""
        stem = self.layout.vision
        width, _, patch, _ = self.of(f"{stem}.embeddings.patch_embedding.weight")
        positions, _ = self.of(f"{stem}.embeddings.position_embedding.weight")
        hidden, _ = self.of(f"{stem}.encoder.layers.0.mlp.fc1.weight")
        layers = self._layers(f"{stem}.encoder")
        size = patch * round(positions**0.5)
        return {"size": size, "patch": patch, "width": width, "hidden": hidden, "layers": layers}

    @cached_property
    def streams(self) -> dict[str, Any]:
        """`StreamsConfig`: layers and widths of both streams.

        Raises:
            ConfigError: if the expert is not as deep as the language model.
        """
        text, expert = self.layout.text, self.layout.expert
        layers, expert_layers = self._layers(text), self._layers(expert)
        if layers != expert_layers:
            raise ConfigError(
                f"an expert of {expert_layers} layers beside a prefix of {layers} is not supported"
            )
        hidden, width = self.of(f"{text}.layers.0.mlp.gate_proj.weight")
        expert_hidden, expert_width = self.of(f"{expert}.layers.0.mlp.gate_proj.weight")
        return {
            "layers": layers,
            "prefix_width": width,
            "prefix_hidden": hidden,
            "expert_width": expert_width,
            "expert_hidden": expert_hidden,
        }

    @property
    def queries(self) -> int:
        """Heads times their width."""
        return self.of(f"{self.layout.text}.layers.0.self_attn.q_proj.weight")[0]

    @property
    def keys(self) -> int:
        """Heads of keys times their width."""
        return self.of(f"{self.layout.text}.layers.0.self_attn.k_proj.weight")[0]

    def _layers(self, stem: str) -> int:
        """Layers `stem.layers.<i>` that the weights hold."""
        inside = f"{stem}.layers."
        return len(
            {name.removeprefix(inside).split(".")[0] for name in self.weights if name.startswith(inside)}
        )
