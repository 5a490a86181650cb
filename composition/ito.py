"""The reverse diffusion in which densities can be followed: SuperDiff's coordinates (arXiv 2412.17762).

`y = a + u eps` with u from large to 0; on the project's path `y = x_s / (1 - s)` at `u = s / (1 - s)`. One step is
`Dy = -2 du eps_hat + n` with `n = sqrt(2 u du) z`, the last one `-du eps_hat`. Any policy may be sampled so; it takes
many steps, and it is what superpositions need.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from ..data.errors import ConfigError
from ..policies.guidance import Pull
from ..policies.path import hold
from ..policies.sampling import OwnSampler, Trace

if TYPE_CHECKING:
    from .ensemble import Ensemble


@dataclass(frozen=True, kw_only=True)
class ReverseSDE(OwnSampler):
    """Sampling by the reverse diffusion, for compositions (compose([policy]) makes one of a single policy).

    Attributes:
        steps: network calls. With fewer than 100, the densities that superpositions follow are mostly noise.
        largest: u at the first step.
        smallest: u at the last.
        power: how the steps crowd towards the end, as in EDM.
    """

    steps: int = 200
    largest: float = 80.0
    smallest: float = 0.002
    power: float = 7.0

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ConfigError(f"steps must be at least 2, got {self.steps}; superpositions need 100 or more")
        if not 0 < self.smallest < self.largest < math.inf:
            raise ConfigError(
                f"the levels must satisfy 0 < smallest < largest, got {self.smallest} and {self.largest}"
            )
        if not 0 < self.power < math.inf:
            raise ConfigError(f"power must be positive and finite, got {self.power}")

    def levels(self) -> Tensor:
        """(steps + 1,) u at every step, and 0."""
        ends = (self.largest ** (1 / self.power), self.smallest ** (1 / self.power))
        share = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        u = (ends[0] + share * (ends[1] - ends[0])) ** self.power
        return torch.cat([u, u.new_zeros(1)])


@dataclass(frozen=True)
class Step:
    """One step of the diffusion, as a superposition sees it before it is made.

    Attributes:
        y: (B', H, A) where it begins.
        u: its noise level.
        du: how far it goes.
        n: (B', H, A) the noise it will add; zeros in the last step.
        free: first row that no prefix holds.
        count: how many steps there are.
    """

    y: Tensor
    u: float
    du: float
    n: Tensor
    free: int
    count: int

    def scaled(self, d: float) -> Self:
        """The same in a space `z' = z / d`."""
        return self if d == 1.0 else replace(self, y=self.y / d, u=self.u / d, du=self.du / d, n=self.n / d)


def follow(
    policy: "Ensemble",
    condition: Any,
    shape: tuple[int, int, int],
    sampler: ReverseSDE,
    *,
    generator: torch.Generator | None = None,
    prefix: Tensor | None = None,
    noise: Tensor | None = None,
    pull: Pull | None = None,
    trace: Trace | None = None,
) -> Tensor:
    """Normalised chunks (B', H, A) by the reverse diffusion; arguments as of `sampling.generate`."""
    del pull, trace  # guides are refused before, evaluations counted after
    device = policy.device
    generator = generator or torch.Generator().manual_seed(0)
    levels = sampler.levels().tolist()

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device).to(device)

    start = draw() if noise is None else noise.to(device)
    y = levels[0] * start
    policy.watch(condition, None)
    for u, after in itertools.pairwise(levels):
        if prefix is not None:
            y = hold(y, prefix.to(y) + u * start[:, : prefix.shape[1]])
        du, last = u - after, after == 0
        n = torch.zeros_like(y) if last else math.sqrt(2 * u * du) * draw()
        free = 0 if prefix is None else prefix.shape[1]
        policy.watch(condition, Step(y, u, du, n, free, sampler.steps))
        eps = policy.predict_noise(y / (1 + u), torch.tensor(u / (1 + u), device=device), condition)
        y = y - du * eps if last else y - 2 * du * eps + n
    return hold(y, prefix)


def log_density_step(dy: Tensor, eps: Tensor, u: float, du: float) -> Tensor:
    """(B',) increments of a member's log-density along a step dy (B', N) of the diffusion, without a divergence.

    `D log q = -(<Dy, eps> + du |eps|^2) / u`, the Ito density estimator; what a Laplacian would add cancels.
    """
    return -((dy * eps).sum(dim=1) + du * eps.square().sum(dim=1)) / u


def mixture_weights(log_density: Tensor, log_prior: Tensor, temperature: float) -> Tensor:
    """(B', M) weights of OR, `softmax(T log q + l)`; with T = 1 the exact score of the mixture of prior exp(l)."""
    return torch.softmax(temperature * log_density + log_prior, dim=1)


def agreement_weights(eps: Tensor, n: Tensor, du: float) -> Tensor:
    """(B', M) weights of AND: they sum to 1, and every member's log-density changes by the same in this step.

    For two members `k_1 = 1/2 + <n, D> / (2 du |D|^2)` with `D = eps_1 - eps_2`; for more, a linear system. They may be
    negative. Members that agree with the last one keep an even weight.

    Args:
        eps: (M, B', N) the members' noise.
        n: (B', N) the noise this step will add.
        du: its length.
    """
    count = len(eps)
    even = eps.new_full((eps.shape[1], count), 1 / count)
    if count == 1:
        return even
    apart = (eps[:-1] - eps[-1]).transpose(0, 1)  # (B', M - 1, N)
    members = eps.transpose(0, 1)  # (B', M, N)
    norms = members.square().sum(dim=2)
    gram = apart @ members.transpose(1, 2)  # (B', M - 1, M): <eps_j, D_i>
    wanted = (apart @ n[:, :, None]).squeeze(2) / (2 * du) + (norms[:, :-1] - norms[:, -1:]) / 2
    # k = even + (c, -sum c): sum k = 1 by construction, c the smallest solution where members agree.
    basis = torch.cat([torch.eye(count - 1), -torch.ones(1, count - 1)]).to(eps)
    system = gram @ basis
    rest = wanted - (gram @ even[:, :, None]).squeeze(2)
    solved = torch.linalg.pinv(system.double(), rtol=1e-9, hermitian=True) @ rest.double()[:, :, None]
    return even + (basis.double() @ solved).squeeze(2).to(even)
