"""The two streams of a vision-language-action policy: a prefix that is encoded once, and an expert that attends to it.

Both have the same depth and heads, so that a layer of the expert can read the keys and values of the same layer of the
prefix. No prefix token sees the suffix, hence what the expert needs of the prefix can be kept for all flow steps and
all samples; the result equals one attention over both, token for token.
Shapes: B batch, K samples, P prefix tokens, L suffix tokens, G groups, D width of a head.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from ...data.errors import ConfigError
from .attention import Rotation, mask_bias, rotate, rotation, self_attention, shared_attention
from .blocks import Activation, AdaptiveRMSNorm, Layer, RMSNorm

Cache = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, kw_only=True)
class StreamsConfig:
    """Size and kind of the two streams.

    Attributes:
        layers: of both streams.
        heads: attention heads.
        groups: heads of keys and values; must divide `heads`.
        head_width: of one head.
        prefix_width: of an image, text or prefix state token.
        prefix_hidden: of the prefix's feed-forward part.
        expert_width: of an action token.
        expert_hidden: of the expert's feed-forward part.
        activation: of the feed-forward gates.
        norm_offset: 1 for Gemma's norms, 0 for Llama's; see `blocks.RMSNorm`.
        epsilon: of the norms.
        joint_every: the layers 0, n, 2n, ... of the expert attend to the prefix and to the suffix together, as all do
            with 1 (pi0); the others read the prefix alone (SmolVLA: 2).
    """

    layers: int = 2
    heads: int = 4
    groups: int = 4
    head_width: int = 16
    prefix_width: int = 64
    prefix_hidden: int = 128
    expert_width: int = 48
    expert_hidden: int = 96
    activation: Activation = "gelu"
    norm_offset: float = 1.0
    epsilon: float = 1e-6
    joint_every: int = 1

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "groups", "prefix_hidden", "expert_hidden", "joint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.heads % self.groups:
            raise ConfigError(f"groups must divide heads, got {self.groups} and {self.heads} heads")
        for name in ("head_width", "prefix_width", "expert_width"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ConfigError(f"{name} must be even and at least 2, got {getattr(self, name)}")
        if self.expert_width < 4:
            raise ConfigError(f"expert_width must be at least 4, got {self.expert_width}")
        if self.activation not in ("gelu", "silu"):
            raise ConfigError(f"activation must be gelu or silu, got {self.activation!r}")


@dataclass(frozen=True)
class Place:
    """What suffixes see and where their tokens stand, which is the same at every flow step.

    Attributes:
        bias: (B, L, P + L) of `mask_bias`.
        turn: rotation to the tokens' positions, B * K rows.
        restart: rotation to positions that count from 0, one row, for layers without keys of their own.
    """

    bias: Tensor
    turn: Rotation
    restart: Rotation

    def repeat(self, samples: int) -> Self:
        """The same for `samples` times as many suffixes."""
        cos, sin = (x.repeat_interleave(samples, dim=0) for x in self.turn)
        return replace(self, turn=(cos, sin))


class Streams(nn.Module):
    """Both streams, layer by layer."""

    def __init__(self, config: StreamsConfig, *, adaptive: bool) -> None:
        """With `adaptive`, a condition modulates the norms of the expert."""
        super().__init__()
        self.config = config
        self.prefix = nn.ModuleList([_prefix_layer(config) for _ in range(config.layers)])
        self.expert = nn.ModuleList([_expert_layer(config, i, adaptive) for i in range(config.layers)])
        self.norm = _norm(config, config.expert_width, adaptive)
        last = self.prefix[-1]
        assert isinstance(last, Layer)
        for unused in (last.q, last.o, last.mlp, last.norm_mlp):
            unused.requires_grad_(False)  # of the last layer, only keys and values are read

    def encode(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Cache:
        """What the expert's layers read of a prefix: keys and values (B, G, P, D) of each.

        Args:
            tokens: (B, P, prefix_width).
            mask: (B, P, P) bool.
            positions: (B, P).
        """
        turn = rotation(positions, self.config.head_width)
        cache = []
        for i in range(self.config.layers):
            layer, expert = self.layer(i)
            normed, gate = layer.norm_attention(tokens)
            k, v = layer.keys_values(normed, normed)
            k = rotate(k, turn)
            read = (k, v) if self.is_joint(i) else expert.keys_values(k.flatten(2), v.flatten(2))
            cache.append(tuple(x.transpose(1, 2).contiguous() for x in read))
            if i + 1 < self.config.layers:
                attended = self_attention(rotate(layer.queries(normed), turn), k, v, mask)
                tokens = layer.finish(tokens, attended, gate, None)
        return tuple(cache)

    def place(self, mask: Tensor, positions: Tensor) -> Place:
        """How `decode` reads one suffix per prefix.

        Args:
            mask: (B, L, P + L) bool.
            positions: (B, L), one after the other.
        """
        width = self.config.head_width
        first = torch.arange(mask.shape[1], device=mask.device)[None]
        return Place(
            mask_bias(mask, torch.float32), rotation(positions, width), restart=rotation(first, width)
        )

    def decode(self, tokens: Tensor, cache: Cache, place: Place, condition: Tensor | None = None) -> Tensor:
        """The expert's answer (B * K, L, expert_width).

        Args:
            tokens: (B * K, L, expert_width); K in a row belong to one prefix.
            cache: of `encode`.
            place: of `place`, repeated K times.
            condition: (B * K, expert_width) for adaptive norms, or (1, expert_width) for all.
        """
        for i, prefix in enumerate(cache):
            _, layer = self.layer(i)
            normed, gate = layer.norm_attention(tokens, condition)
            q = layer.queries(normed)
            if self.is_joint(i):
                k, v = layer.keys_values(normed, normed)
                own = (rotate(k, place.turn), v)
                attended = shared_attention(rotate(q, place.turn), prefix, own, place.bias)
            else:
                seen = place.bias[..., : prefix[0].shape[2]]
                attended = shared_attention(rotate(q, place.restart), prefix, None, seen)
            tokens = layer.finish(tokens, attended, gate, condition)
        return self.norm(tokens, condition)[0]

    def layer(self, i: int) -> tuple[Layer, Layer]:
        """The i-th layers of prefix and expert."""
        prefix, expert = self.prefix[i], self.expert[i]
        assert isinstance(prefix, Layer)
        assert isinstance(expert, Layer)
        return prefix, expert

    def is_joint(self, i: int) -> bool:
        """Whether layer i of the expert attends to prefix and suffix together."""
        return i % self.config.joint_every == 0


def _norm(config: StreamsConfig, width: int, adaptive: bool) -> nn.Module:
    if adaptive:
        return AdaptiveRMSNorm(width, epsilon=config.epsilon)
    return RMSNorm(width, offset=config.norm_offset, epsilon=config.epsilon)


def _prefix_layer(config: StreamsConfig) -> Layer:
    width = config.prefix_width
    return _layer(config, width, config.prefix_hidden, memory_width=None, adaptive=False)


def _expert_layer(config: StreamsConfig, i: int, adaptive: bool) -> Layer:
    memory = None if i % config.joint_every == 0 else config.groups * config.head_width
    return _layer(config, config.expert_width, config.expert_hidden, memory_width=memory, adaptive=adaptive)


def _layer(
    config: StreamsConfig, width: int, hidden: int, *, memory_width: int | None, adaptive: bool
) -> Layer:
    return Layer(
        width,
        hidden,
        heads=config.heads,
        groups=config.groups,
        head_width=config.head_width,
        memory_width=memory_width,
        norms=(_norm(config, width, adaptive), _norm(config, width, adaptive)),
        activation=config.activation,
    )
