"""Weights without a single episode: those that denoise demonstrations best.

`min_w E |sum_i w_i eps_i(x_s, s, o) - eps|^2` over the simplex is a quadratic programme in the Gram matrix of the members'
errors. As the weights sum to 1, its solution also minimises the error of the score. It is a start, not the end: what
denoises best need not act best.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.episodes import Episodes
from ..data.errors import ConfigError
from ..policies.path import mix
from .composed import ComposedPolicy
from .demonstrated import demonstrated
from .trials import Weights

Array = NDArray[np.float64]

_MOST = 12  # members; every subset of them is looked at


def denoising_weights(
    policy: ComposedPolicy,
    episodes: Episodes,
    *,
    count: int = 1024,
    generator: torch.Generator | None = None,
) -> Weights:
    """Weights of a composition's members that denoise held-out demonstrations best.

    Args:
        policy: with any weights of which none is 0.
        episodes: demonstrations that no member was trained on.
        count: windows, each at a noise level drawn evenly from s in 0.02..0.98.
        generator: of windows, levels and noise; a fresh one seeded with 0 if not given.

    Raises:
        ConfigError: if a member's weight is 0, if no number of an action is all members' business, if there are too many
            members, or if one answers with numbers that are not finite.
    """
    if policy.unused:
        raise ConfigError(
            f"{len(policy.unused)} members have weight 0 and are never asked; compose with all weights above 0 to weigh them"
        )
    return simplex_minimum(error_gram(policy, episodes, count=count, generator=generator))


def error_gram(
    policy: ComposedPolicy,
    episodes: Episodes,
    *,
    count: int = 1024,
    generator: torch.Generator | None = None,
) -> Array:
    """(M, M) mean products of the members' errors in the noise, where all of them have a say."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    known, action, noise = demonstrated(policy, episodes, count, generator)
    with torch.no_grad():
        s = (0.02 + 0.96 * torch.rand(count, generator=generator)).to(action)
        x = mix(action, noise, s)
        errors = torch.stack([policy.ask(i, "noise", x, s, known) - noise for i in range(len(policy.asked))])
    if policy.cover is not None:
        shared = policy.cover[..., : action.shape[-1]].all(dim=0)
        if not shared.any():
            raise ConfigError(
                f"no number of an action is predicted by all of {policy.names}, so that nothing tells their weights"
            )
        errors = errors[:, :, shared]
    errors = errors.flatten(1)
    return (errors @ errors.T / errors.shape[1]).double().cpu().numpy()


def simplex_minimum(gram: Array) -> Weights:
    """The w on the simplex with the smallest `w' G w`, exactly, for a positive semidefinite G (M, M).

    Of several, the one on the fewest members, the first in their order.
    """
    members = len(gram)
    if not np.isfinite(gram).all():
        raise ConfigError(
            f"errors of members {np.flatnonzero(~np.isfinite(np.diag(gram))).tolist()} are not finite; see check_member"
        )
    if members > _MOST:
        raise ConfigError(
            f"weights of {members} members are too many for an exact search; give at most {_MOST}"
        )
    best: tuple[float, Weights] | None = None
    for size in range(1, members + 1):
        for support in itertools.combinations(range(members), size):
            w = _inside(gram, support)
            if w is None:
                continue
            value = float(w @ gram @ w)
            if best is None or value < best[0] - 1e-12 * abs(best[0]):
                best = (value, tuple(w.tolist()))
    assert best is not None
    return best[1]


def _inside(gram: Array, support: Sequence[int]) -> Array | None:
    """The minimum over weights of these members that sum to 1, if none of them is negative."""
    count = len(support)
    table = np.ones((count + 1, count + 1))  # of the minimum and the multiplier of the sum, by Lagrange
    table[:count, :count], table[count, count] = gram[np.ix_(support, support)], 0.0
    solved = np.linalg.lstsq(table, np.append(np.zeros(count), 1.0), rcond=1e-12)[0][:count]
    if abs(solved.sum() - 1) > 1e-6 or (solved < -1e-9).any():
        return None
    w = np.zeros(len(gram))
    w[list(support)] = solved.clip(min=0.0)
    return w / w.sum()
