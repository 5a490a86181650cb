"""Transformer layers of one stream: norms, gated feed-forward, and the projections of attention."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["gelu", "silu"]


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32.

    The scale is `offset + weight`: Gemma's learns the difference from 1, Llama's the scale itself.
    """

    def __init__(self, width: int, *, offset: float, epsilon: float) -> None:
        """Start with a scale of 1."""
        super().__init__()
        self.offset, self.epsilon = offset, epsilon
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, L, W) to the same shape; the gate of the residual, None here, comes second."""
        scale = self.offset + self.weight.float()
        return F.rms_norm(x.float(), x.shape[-1:], scale, self.epsilon).to(x.dtype), None


class AdaptiveRMSNorm(nn.Module):
    """pi0.5's norm (arXiv 2504.16054): a condition scales and shifts it and gates the residual; no gate is open at first."""

    def __init__(self, width: int, *, epsilon: float) -> None:
        """The condition is as wide as the stream."""
        super().__init__()
        self.epsilon = epsilon
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, L, W) and a condition (B or 1, W) to the normed stream and the gate (B or 1, 1, W)."""
        scale, shift, gate = self.modulation(condition)[:, None].chunk(3, dim=-1)
        return (_unit(x, self.epsilon) * (1 + scale.float()) + shift.float()).to(x.dtype), gate


def _unit(x: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], eps=epsilon)


class GatedMLP(nn.Module):
    """`down(activation(gate(x)) * up(x))`: GeGLU or SwiGLU, arXiv 2002.05202."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        """No biases."""
        super().__init__()
        self.activation = activation
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W)."""
        gate = self.gate(x)
        gate = F.silu(gate) if self.activation == "silu" else F.gelu(gate, approximate="tanh")
        return self.down(gate * self.up(x))


class Layer(nn.Module):
    """One layer of one stream; attention itself happens between the streams.

    Attributes:
        groups: heads of keys and values.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        heads: int,
        groups: int,
        head_width: int,
        memory_width: int | None,
        norms: tuple[nn.Module, nn.Module],
        activation: Activation,
    ) -> None:
        """Keys and values are made of `memory_width` numbers, or of the stream's own where it is None."""
        super().__init__()
        self.groups, self.head_width = groups, head_width
        self.norm_attention, self.norm_mlp = norms
        self.q = nn.Linear(width, heads * head_width, bias=False)
        self.k = nn.Linear(memory_width or width, groups * head_width, bias=False)
        self.v = nn.Linear(memory_width or width, groups * head_width, bias=False)
        self.o = nn.Linear(heads * head_width, width, bias=False)
        self.mlp = GatedMLP(width, hidden, activation)

    def queries(self, x: Tensor) -> Tensor:
        """(B, L, W) to (B, L, heads, D)."""
        return self.q(x).unflatten(-1, (-1, self.head_width))

    def keys_values(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What keys and what values are made of, (B, L, W) each, to (B, L, groups, D) each."""
        shape = (self.groups, self.head_width)
        return self.k(k).unflatten(-1, shape), self.v(v).unflatten(-1, shape)

    def finish(self, x: Tensor, attended: Tensor, gate: Tensor | None, condition: Tensor | None) -> Tensor:
        """Add what attention found (B, L, heads * D), then the feed-forward part, to the stream (B, L, W)."""
        x = _residual(x, self.o(attended), gate)
        normed, gate = self.norm_mlp(x, condition)
        return _residual(x, self.mlp(normed), gate)


def _residual(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    return x + (y if gate is None else y * gate)
