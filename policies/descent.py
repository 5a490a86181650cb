"""Actions as minima: from noise down a learned energy, until the gradient is small (EBT-Policy, arXiv 2510.27545).

Every row stops by itself and is not evaluated any more; how many evaluations it took is counted per row.

Shapes: B' rows, H chunk horizon, A action width, P committed actions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.errors import ConfigError
from .descent_step import DescentStep, advance
from .network import draw
from .sampling import OwnSampler


@dataclass(frozen=True, kw_only=True)
class Descent(OwnSampler):
    """Sampling by descent: from noise, until the gradient is small.

    Every row makes a first step, goes on while the norm of its gradient exceeds `tolerance`, and then makes one more:
    between 2 and `steps` network evaluations.

    Attributes:
        steps: most steps of a row.
        tolerance: gradient norm of a row at which it makes its last step; 0 makes all steps.
        best_of: starts per chunk, of which the one that ends at the lowest energy is kept. Judging the ends costs
            one evaluation per start.
        spread: standard deviation of the starts.
        noise: standard deviation of noise added before every step but the last.
        size: in place of the policy's own step size.
        momentum: in place of the policy's own.
    """

    steps: int = 10
    tolerance: float = 0.0
    best_of: int = 1
    spread: float = 1.0
    noise: float = 0.0
    size: float | None = None
    momentum: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "best_of"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.tolerance >= 0:  # infinity is allowed: two steps for everyone
            raise ConfigError(f"tolerance must be at least 0, got {self.tolerance}")
        for name in ("spread", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if self.size is not None and not 0 < self.size < math.inf:
            raise ConfigError(f"size must be positive and finite, or none, got {self.size}")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), or be none, got {self.momentum}")


@dataclass
class Found:
    """Where a descent ended.

    Attributes:
        x: (B', H, A).
        evaluations: (B',) energies evaluated for each row.
        energy: (B',) at x, where it was looked up.
    """

    x: Tensor
    evaluations: Tensor
    energy: Tensor | None = None


@dataclass(frozen=True)
class _Rows:
    """The rows still under way.

    Attributes:
        index: (n,) which they are.
        last: (n,) bool, whether the next step is their last.
        memory: (n, ...) what was observed.
        prefix: (n, P, A) or None.
    """

    index: Tensor
    x: Tensor
    velocity: Tensor
    last: Tensor
    memory: Tensor
    prefix: Tensor | None

    def keep(self, which: Tensor) -> "_Rows":
        """Only these, (n,) bool."""
        values = {name: None if value is None else value[which] for name, value in vars(self).items()}
        return _Rows(**values)  # pyright: ignore[reportArgumentType]


def descend(
    energy: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    memory: Tensor,
    step: DescentStep,
    sampler: Descent,
    *,
    size: Tensor | float,
    prefix: Tensor | None = None,
    generator: torch.Generator | None = None,
    quick: bool = True,
) -> Found:
    """Go down from every row of `start` (B', H, A); rows that are done are not evaluated any more.

    Args:
        energy: called with chunks (n, H, A) and their rows of `memory`.
        start: where to begin.
        memory: (B', ...) what was observed.
        step: how to move.
        sampler: when to stop. Starts, sizes and momentum are the caller's.
        size: alpha, a number or a scalar tensor.
        prefix: (B', P, A) actions that every chunk starts with.
        generator: of the noise that `sampler.noise` asks for; needed for that alone.
        quick: for sampling, where nobody differentiates through the descent.
    """
    count, device = len(start), start.device
    only = torch.full((count,), sampler.steps == 1, device=device)
    rows = _Rows(torch.arange(count, device=device), start, torch.zeros_like(start), only, memory, prefix)
    found = Found(start, torch.zeros(count, dtype=torch.long))
    for k in range(sampler.steps):
        move = advance(
            lambda y, seen=rows.memory: energy(y, seen),
            rows.x, rows.velocity, step,
            size=size, noise=_disturbance(sampler, rows, start, generator), prefix=rows.prefix, quick=quick,
        )  # fmt: skip
        found.evaluations[rows.index.cpu()] += 1
        leaving = rows.last | (k == sampler.steps - 1)
        small = _norm(move.gradient, step) <= sampler.tolerance
        rows = replace(rows, x=move.x, velocity=move.velocity, last=small | (k == sampler.steps - 2))
        if leaving.any():
            found.x = found.x.index_copy(0, rows.index[leaving], rows.x[leaving])
            rows = rows.keep(~leaving)
        if not len(rows.index):
            break
    return found


def _norm(gradient: Tensor, step: DescentStep) -> Tensor:
    """(n,) norm by which rows stop."""
    if step.compat:
        return gradient.norm().expand(len(gradient))
    return gradient.flatten(1).norm(dim=1)


def _disturbance(
    sampler: Descent, rows: _Rows, like: Tensor, generator: torch.Generator | None
) -> Tensor | None:
    """(n, H, A) noise of the rows, drawn for all that ever were, so that none depends on which are left."""
    if not sampler.noise:
        return None
    if generator is None:
        raise ConfigError(f"a descent with noise {sampler.noise} needs a generator to draw it from")
    drawn = sampler.noise * draw(like.shape, generator, like)
    return drawn[rows.index] * ~rows.last.view(-1, 1, 1)
