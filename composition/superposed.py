"""OR and AND of policies: superposition by followed densities (SuperDiff, arXiv 2412.17762).

OR draws from the mixture of its members: a chunk that any of them would make. AND draws chunks whose log-densities
under all members rise alike: what all of them can agree on. Both weigh the members anew at every step and for every
chunk. Flow members take part like any others, since all members answer on one path.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..data.errors import ConfigError, SpecError
from ..data.schema import nearest
from ..policies.policy import Policy
from .ensemble import Ensemble
from .fault import Fallback
from .ito import ReverseSDE, Step, agreement_weights, log_density_step, mixture_weights
from .meeting import Part, as_parts
from .together import Together

Operator = Literal["or", "and"]
_OPERATORS = ("or", "and")

_FEWEST = 100  # steps with which followed densities mean something


@dataclass
class Track:
    """What a superposition remembers of the chunks under way.

    Attributes:
        log_density: (B', M) changes of the members' log-densities since the first step.
        step: the step to be made.
        eps: (M, B', N) the members' answers in it; None before they were asked.
        weights: (B', M) of the latest step.
    """

    step: Step
    log_density: Tensor
    eps: Tensor | None = field(default=None, repr=False)
    weights: Tensor | None = None

    def arrive(self, step: Step) -> None:
        """Take the step that was made into account, and expect the next."""
        before = self.step
        if self.eps is not None:
            dy = (step.y - before.y)[:, before.free :].flatten(1)
            moved = [log_density_step(dy, eps, before.u, before.du) for eps in self.eps]
            self.log_density = self.log_density + torch.stack(moved, dim=1)
        self.step, self.eps = step, None


class SuperposedPolicy(Ensemble):
    """Members under AND or OR; sampled by `ReverseSDE` only, which is what keeps track of densities.

    Attributes:
        operator: `or` or `and`.
        temperature: T of OR; large values choose the likeliest member, 0 mixes by the prior.
        prior: (M,) of OR, the share of chunks that each member is to make.
    """

    operator: Operator

    def __init__(
        self,
        parts: Sequence[Part],
        operator: Operator,
        *,
        temperature: float = 1.0,
        prior: Sequence[float] | None = None,
        sampler: ReverseSDE | None = None,
        fallback: Fallback = "none",
        execute: int | None = None,
    ) -> None:
        """Made by `superpose`."""
        if operator not in _OPERATORS:
            raise ConfigError(f"unknown operator {operator!r}; {nearest(operator, _OPERATORS)}")
        if not 0 <= temperature < math.inf:
            raise ConfigError(f"temperature must be at least 0 and finite, got {temperature}")
        prior = tuple(prior) if prior is not None else (1 / len(parts),) * len(parts)
        if len(prior) != len(parts) or not all(0 < p < math.inf for p in prior):
            raise ConfigError(f"prior needs one positive share for each of {len(parts)} members, got {prior}")
        super().__init__(parts, sampler=sampler or ReverseSDE(), fallback=fallback, execute=execute)
        if self.cover is not None:
            raise SpecError(
                "members of a superposition must predict the same actions, since densities of different ones cannot be "
                f"compared; chunks are {[m.policy.spec.horizon for m in self.asked]} long and start at "
                f"{[m.policy.spec.start for m in self.asked]}"
            )
        self.operator, self.temperature = operator, temperature
        self.prior = tuple(p / sum(prior) for p in prior)

    def watch(self, condition: Together, step: Step | None) -> None:
        """Follow the densities one step further."""
        super().watch(condition, step)
        track = condition.track
        if step is None:
            condition.track = None
        elif isinstance(track, Track):
            track.arrive(step)
        else:
            if step.count < _FEWEST:
                warnings.warn(
                    f"{self.operator.upper()} in {step.count} steps: followed densities are mostly noise with fewer "
                    f"than {_FEWEST}; use ReverseSDE(steps=200)",
                    stacklevel=2,
                )
            members = sum(part is not None for part in condition.parts)
            condition.track = Track(step, step.y.new_zeros(len(step.y), members))

    def predict_noise(self, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        """eps_hat at x_s, where the reverse diffusion has arrived.

        Raises:
            ConfigError: under any other sampler.
        """
        track = condition.track
        if not isinstance(track, Track):
            raise ConfigError(
                f"{self.operator.upper()} follows densities along the reverse diffusion, which this sampler does not "
                "make; use sampler=ReverseSDE(), or compose(...) for a composition that any sampler can draw from"
            )
        inside = [i for i, part in enumerate(condition.parts) if part is not None]
        each = self.ask_all(inside, "noise", x, s, condition)
        answers = self.checked(torch.stack(each), each, inside, "noise", condition)
        track.eps = answers[:, :, track.step.free :].flatten(2)
        if self.operator == "or":
            log_prior = track.log_density.new_tensor([math.log(self.prior[i]) for i in inside])
            weights = mixture_weights(track.log_density, log_prior, self.temperature)
        else:
            weights = agreement_weights(
                track.eps, track.step.n[:, track.step.free :].flatten(1), track.step.du
            )
        track.weights = weights
        return torch.einsum("bm,mbha->bha", weights.to(answers), answers)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        """eps_hat - a_hat at x_s, s < 1; see `predict_noise`."""
        return (self.predict_noise(x, s, condition) - x) / (1 - s)

    def heading(self) -> str:
        """What it is, for people."""
        return "superposition, " + self.operator.upper()

    def share(self, number: int) -> str:
        """A member's weight, for people."""
        return f"prior {self.prior[number]:.3g}" if self.operator == "or" else "even"


def superpose(
    members: Mapping[str, Policy] | Sequence[Policy | Part],
    operator: Operator,
    *,
    temperature: float = 1.0,
    prior: Sequence[float] | None = None,
    sampler: ReverseSDE | None = None,
    fallback: Fallback = "none",
) -> SuperposedPolicy:
    """OR or AND of policies.

    Args:
        members: policies that answer at any noise level, by name or in a row.
        operator: `or` for what any member would do, `and` for what all can agree on.
        temperature: T of OR; 1 is the exact mixture.
        prior: of OR, the share of each member; even if not given.
        sampler: how many steps; 200 if not given.
        fallback: `others` goes on without a member that fails, `none` raises.

    Raises:
        SensorimotorError: for members that do not fit together, naming them and what differs.
    """
    return SuperposedPolicy(
        as_parts(members), operator, temperature=temperature, prior=prior, sampler=sampler, fallback=fallback
    )
