"""Would a critic have a choice? A policy's candidates for recorded observations, before anything moves."""

import numpy as np
import torch

from ..data.episodes import Episodes
from ..data.errors import ConfigError
from ..data.windows import Windows
from ..policies.policy import Policy
from ..rl.critic import Critic
from .reranked import rerank
from .spread import Spread

_AT_ONCE = 32  # observations per call


def candidate_spread(
    policy: Policy,
    critic: Critic,
    episodes: Episodes,
    *,
    samples: int = 10,
    count: int = 256,
    generator: torch.Generator | None = None,
) -> Spread:
    """How far candidates lie apart on demonstrations, and what choosing the best by value promises.

    Args:
        policy: whose candidates.
        critic: whose values.
        episodes: where from; better ones that the policy was not trained on.
        samples: K, candidates per observation.
        count: observations, drawn with replacement.
        generator: of observations and candidates; a fresh one seeded with 0 if not given.

    Raises:
        ConfigError: for fewer than two candidates, which leave no choice.
        SpecError: if policy, critic and episodes do not fit together.
    """
    if samples < 2 or count < 1:
        raise ConfigError(
            f"a choice needs 2 candidates and 1 observation or more, got samples {samples}, count {count}"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    reranked = rerank(policy, critic, samples=samples)
    windows = Windows(episodes, reranked.spec)
    index = torch.randint(len(windows), (count,), generator=generator)
    for rows in index.split(_AT_ONCE):
        batch = windows.batch(np.asarray(rows)).to(policy.device)
        reranked.sample(batch.observation, generator=generator)
    return reranked.spread()
