"""Numbers written as tokens: the state in pi0.5's prompt, and OpenVLA's actions."""

import torch
from torch import Tensor

_STATE_BINS = 256
_ACTION_EDGES = 256  # the last intervals of OpenVLA's vocabulary stand between so many edges on [-1, 1]


def state_bins(state: Tensor) -> Tensor:
    """pi0.5's number 0..255 of each normalised state (arXiv 2504.16054), beyond [-1, 1] that of the nearest end.

    The release counts edges -1 + i / 128 that are not above the value, and so writes -1 below -1.
    """
    counted = torch.floor((state.double().clamp(-1.0, 1.0) + 1.0) * (_STATE_BINS / 2))
    return counted.long().clamp_max(_STATE_BINS - 1)


def state_prompt(instruction: str, bins: Tensor) -> str:
    """pi0.5's prompt for an instruction and the bins (D,) of the state."""
    words = instruction.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {words}, State: {' '.join(str(int(b)) for b in bins)};\nAction: "


def openvla_tokens(action: Tensor, vocabulary: int) -> Tensor:
    """OpenVLA's token of each normalised action (arXiv 2406.09246), counted down from the end of the vocabulary."""
    edges = torch.linspace(-1.0, 1.0, _ACTION_EDGES, dtype=torch.float64, device=action.device)
    return vocabulary - torch.bucketize(action.double().clamp(-1.0, 1.0), edges, right=True)


def openvla_actions(tokens: Tensor, vocabulary: int) -> Tensor:
    """The centre of each token's interval: the inverse of `openvla_tokens` to within 1 / 255."""
    edges = torch.linspace(-1.0, 1.0, _ACTION_EDGES, dtype=torch.float64, device=tokens.device)
    centres = (edges[:-1] + edges[1:]) / 2
    return centres[(vocabulary - tokens - 1).clamp(0, _ACTION_EDGES - 2)].float()


def openvla_token_begin(vocabulary: int) -> int:
    """Tokens above this one stand for actions."""
    return vocabulary - _ACTION_EDGES - 1
