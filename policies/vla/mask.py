"""Who sees whom among the tokens of a vision-language-action policy, and where each token stands.

Every token carries a flag that opens a new block; a token sees the blocks up to and including its own. This is the
rule of openpi (pi0, arXiv 2410.24164) and of SmolVLA (arXiv 2506.01844), which differ in the flags of the actions.
Shapes: B batch, P prefix tokens, S suffix tokens, L = P + S.
"""

from typing import Literal

import torch
from torch import Tensor

MaskRule = Literal["pi0", "smolvla"]
StatePlace = Literal["suffix", "prefix", "text"]


def prefix_flags(seen: int, state: int) -> Tensor:
    """(P,) flags of `seen` image and text tokens, which all see each other, and `state` tokens, which see them too."""
    return torch.tensor([0] * seen + _block(state))


def suffix_flags(rule: MaskRule, state: int, actions: int) -> Tensor:
    """(S,) flags of `state` tokens, blind to actions, and of the actions: one block, or each its own (causal)."""
    return torch.tensor(_block(state) + (_block(actions) if rule == "pi0" else [1] * actions))


def attention_mask(flags: Tensor, valid: Tensor) -> Tensor:
    """(B, L, L) bool, True where the token of the row sees that of the column.

    Args:
        flags: (L,) or (B, L), 1 where a block begins.
        valid: (B, L) bool, False for padding, which neither sees nor is seen.
    """
    block = flags.cumsum(dim=-1)
    sees = block[..., None, :] <= block[..., :, None]
    return sees & valid[:, None, :] & valid[:, :, None]


def token_positions(valid: Tensor) -> Tensor:
    """(B, L) position of each token: padding takes no place of its own."""
    return valid.long().cumsum(dim=-1) - 1


def _block(count: int) -> list[int]:
    return [1] + [0] * (count - 1) if count else []
