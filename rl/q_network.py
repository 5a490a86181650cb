"""Several networks that value actions, computed together, and one that values a state.

Shapes: E networks of the ensemble, B states of F numbers, K actions of D numbers each.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EnsembleLinear(nn.Module):
    """E layers side by side, each with its own weights, initialised as `nn.Linear` is."""

    def __init__(self, members: int, inputs: int, outputs: int, *, fan_in: int | None = None) -> None:
        """`fan_in` sets the scale of the first weights where these are not all inputs of the layer."""
        super().__init__()
        bound = 1 / math.sqrt(fan_in or inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(E or 1, N, inputs) to (E, N, outputs)."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


class QNetwork(nn.Module):
    """Values of K actions in each of B states.

    The first layer has a part for the state, computed once per state, and one for the action, so that many candidates
    cost little more than one.
    """

    def __init__(self, members: int, state: int, action: int, hidden: Sequence[int]) -> None:
        """E members, F and D inputs, and the widths of the hidden layers."""
        super().__init__()
        self.from_state = EnsembleLinear(members, state, hidden[0], fan_in=state + action)
        bound = 1 / math.sqrt(state + action)
        self.from_action = nn.Parameter(torch.empty(members, action, hidden[0]).uniform_(-bound, bound))
        widths = [*hidden, 1]
        self.layers = nn.ModuleList(EnsembleLinear(members, a, b) for a, b in pairwise(widths))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """States (B, F) and actions (B, K, D) to values (E, B, K)."""
        flat = action.flatten(0, 1).expand(len(self.from_action), -1, -1)
        h = (
            torch.bmm(flat, self.from_action).unflatten(1, action.shape[:2])
            + self.from_state(state[None])[:, :, None]
        )
        h = h.flatten(1, 2)
        for layer in self.layers:
            h = layer(F.silu(h))
        return h.squeeze(-1).unflatten(1, action.shape[:2])


class VNetwork(nn.Module):
    """The value of a state."""

    def __init__(self, state: int, hidden: Sequence[int]) -> None:
        """F inputs and the widths of the hidden layers."""
        super().__init__()
        self.net = nn.Sequential(*layers(state, hidden, 1))

    def forward(self, state: Tensor) -> Tensor:
        """States (B, F) to values (B,)."""
        return self.net(state).squeeze(-1)


def layers(inputs: int, hidden: Sequence[int], outputs: int) -> list[nn.Module]:
    """Linear layers with SiLU between them."""
    widths = [inputs, *hidden]
    made: list[nn.Module] = []
    for a, b in pairwise(widths):
        made += [nn.Linear(a, b), nn.SiLU()]
    return [*made, nn.Linear(widths[-1], outputs)]
