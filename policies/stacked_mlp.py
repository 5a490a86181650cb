"""Several residual MLPs of one shape, asked in one go.

At few rows such a network costs its calls, not its arithmetic: one product over stacked weights takes little longer than
that of one network. Answers are those of the networks one by one, up to rounding. Shapes: M networks, B rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .embedding import periodic
from .mlp import Block, ResidualMLP


class StackedMLP(nn.Module):
    """Copies of the weights of M networks, without dropout and without gradients for the weights."""

    def __init__(self, networks: Sequence[ResidualMLP]) -> None:
        """Networks have the same shapes."""
        super().__init__()
        first = networks[0]
        self.count, self.step_width = len(networks), first.step_width
        self.inlet = _Linear([network.inlet for network in networks])
        self.condition = None if first.condition is None else _Linear([n.condition for n in networks])
        blocks: list[Any] = [list(same) for same in zip(*(n.blocks for n in networks), strict=True)]
        self.blocks = [_Block(same) for same in blocks]
        self.norm = _Norm([network.norm for network in networks])
        self.outlet = _Linear([network.outlet for network in networks])

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """As `ResidualMLP`, on M times as many rows: those of the first network, then those of the second, and so on."""
        features = periodic(step.reshape(-1), self.step_width).expand(len(x), -1)
        c = torch.cat([condition.flatten(1), features], dim=1)
        h = self.inlet(torch.cat([x.flatten(1), c], dim=1).unflatten(0, (self.count, -1)))
        modulation = None
        if self.condition is not None:
            modulation = F.silu(self.condition(c.unflatten(0, (self.count, -1))))
        for block in self.blocks:
            h = block(h, modulation)
        return self.outlet(self.norm(h)).reshape(x.shape)


class _Linear:
    """M layers: (M, B, inputs) to (M, B, outputs)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.weight = torch.stack([layer.weight.detach().t() for layer in layers])
        self.bias = torch.stack([layer.bias.detach() for layer in layers])[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _Norm:
    """M layer normalisations of (M, B, W)."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        self.weight = torch.stack([layer.weight.detach() for layer in layers])[:, None]
        self.bias = torch.stack([layer.bias.detach() for layer in layers])[:, None]
        self.eps = layers[0].eps

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:], eps=self.eps), self.weight)


class _Block:
    """M blocks."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.norm = _Norm([block.norm for block in blocks])
        self.widen = _Linear([block.widen for block in blocks])
        self.narrow = _Linear([block.narrow for block in blocks])
        modulated = blocks[0].modulation is not None
        self.modulation = _Linear([block.modulation for block in blocks]) if modulated else None

    def __call__(self, h: Tensor, condition: Tensor | None) -> Tensor:
        u = self.norm(h)
        if self.modulation is not None:
            assert condition is not None
            scale, shift = self.modulation(condition).chunk(2, dim=-1)
            u = torch.addcmul(shift + u, scale, u)
        return h + self.narrow(F.silu(self.widen(u)))
