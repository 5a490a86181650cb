"""What members are asked about where no world is at hand: recorded actions, and noise for them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.episodes import Episodes
from ..data.windows import Windows
from ..policies.policy import GenerativePolicy


def demonstrated(
    policy: GenerativePolicy, episodes: Episodes, count: int, generator: torch.Generator
) -> tuple[Any, Tensor, Tensor]:
    """What a policy knows of windows drawn with replacement, their actions as it scales them, and noise (count, H, A)."""
    windows = Windows(episodes, policy.spec)
    index = torch.randint(len(windows), (count,), generator=generator)
    batch = windows.batch(np.asarray(index)).to(policy.device)
    with torch.no_grad():
        known = policy.encode(batch.observation)
        action = policy.normalize_action(batch.action.float(), known)
    return known, action, torch.randn(action.shape, generator=generator).to(action)
