"""Many policies become one by mixing their answers: General Policy Composition (arXiv 2510.01068) and its relatives.

At every noise level `eps = sum_i w_i eps_i`, all members asked at the same noised chunk, and one step made with the sum.
With weights that sum to 1 this is the score of the geometric mean of the members' noised densities, and velocities and
actions mix alike. It is not the geometric mean of what the members would draw: noising and mixing do not commute.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never, get_args

import torch
from torch import Tensor

from ..data.errors import ConfigError
from ..data.schema import nearest
from ..policies.path import spread
from ..policies.policy import Policy
from ..policies.sampling import DrawOptions, OwnSampler, SamplerConfig, VelocitySampler
from .ensemble import Ensemble
from .fault import Fallback
from .ito import ReverseSDE
from .meeting import Part, as_parts
from .member import Question
from .together import Together
from .weights import (
    Constant,
    Observed,
    PerDimension,
    Schedule,
    Weights,
    as_weights,
    at_level,
    check_sum,
    described,
    never_used,
    observed,
    select,
    sums,
)

Total = Literal["one", "any"]

_SMALLEST_ALPHA = 1e-3


class ComposedPolicy(Ensemble):
    """Policies mixed at every noise level.

    Attributes:
        weights: of the members that are asked.
        unused: members whose weight is 0 everywhere; they are never asked, and take no part in what the composition
            reads and commands.
    """

    total: Total

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Weights,
        *,
        total: Total = "one",
        sampler: SamplerConfig | OwnSampler | None = None,
        fallback: Fallback = "none",
        execute: int | None = None,
    ) -> None:
        """Made by `compose`."""
        if total not in get_args(Total):
            raise ConfigError(f"unknown total {total!r}; {nearest(str(total), get_args(Total))}")
        if total == "one":
            check_sum(weights)
        idle = never_used(weights)
        if all(idle):
            raise ConfigError("all weights are 0, so that nobody would be asked; give one member a weight")
        used = [i for i, unused in enumerate(idle) if not unused]
        super().__init__([parts[i] for i in used], sampler=sampler, fallback=fallback, execute=execute)
        self.unused = tuple(part for part, out in zip(parts, idle, strict=True) if out)
        self.weights, self.total = select(weights, used), total
        self._check_shapes()

    def encode(self, observation: Mapping[str, Any]) -> Together:
        """What every member knows of B observations, and how much it counts where that depends on them."""
        together = super().encode(observation)
        if isinstance(self.weights, Observed):
            found = observed(self.weights, observation, together.rows, any_total=self.total == "any")
            together.weights = found.to(self.device)
        return together

    def predict_noise(self, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        """eps_hat at x_s: the weighted sum of the members' answers."""
        return self._mixed("noise", x, s, condition)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        """eps_hat - a_hat at x_s; from the noise, at s < 1, where weights do not sum to 1."""
        if self.total == "one":
            return self._mixed("velocity", x, s, condition)
        return (self._mixed("noise", x, s, condition) - x) / (1 - spread(s, x)).clamp_min(_SMALLEST_ALPHA)

    def _mixed(self, question: Question, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        shares = self._shares(x, s, condition)
        wanted = [n for n, share in enumerate(shares) if not (isinstance(share, float) and share == 0.0)]
        answers = self.ask_all(wanted, question, x, s, condition)
        mixed: Tensor | None = None
        for number, answer in zip(wanted, answers, strict=True):
            share = shares[number]
            answer = answer if isinstance(share, float) and share == 1.0 else share * answer
            mixed = answer if mixed is None else mixed + answer
        assert mixed is not None
        return self.checked(mixed, answers, wanted, question, condition)

    def _shares(self, x: Tensor, s: Tensor, condition: Together) -> list[float | Tensor]:
        """How much every member counts at x_s (B', H, A): a number, or what broadcasts against x."""
        base = self._weights_at(x.shape[-1], s, condition)
        cover, present = self.cover, [part is not None for part in condition.parts]
        if cover is None and all(present):
            return base
        # Where not all members have a say, those that do take over the others' weights in proportion.
        says = x.new_ones(len(base), 1, 1) if cover is None else cover[..., : x.shape[-1]].to(x)
        parts = [w * say if there else 0.0 * say for w, say, there in zip(base, says, present, strict=True)]
        left = sum(parts)
        assert isinstance(left, Tensor)
        if not bool((left > 0).all()):
            raise ConfigError(
                f"where only some of {self.names} have a say, their weights sum to {float(left.min()):.4g}, which cannot be "
                "brought to 1; give every member of full length a weight above 0 at every noise level"
            )
        total = sum(base)
        return [part * total / left if there else 0.0 for part, there in zip(parts, present, strict=True)]

    def _weights_at(self, width: int, s: Tensor, condition: Together) -> list[float | Tensor]:
        weights = self.weights
        match weights:
            case Constant(values):
                return list(values)
            case PerDimension():
                return list(self.get_buffer("per_dimension")[:, :width])
            case Schedule():
                if s.ndim == 0:
                    return list(at_level(weights, float(s)))
                rows = torch.tensor([at_level(weights, float(level)) for level in s]).to(s)
                return [row.view(-1, 1, 1) for row in rows.T]
            case Observed():
                assert condition.weights is not None
                return [row.view(-1, 1, 1) for row in condition.weights.T]
            case _:
                assert_never(weights)

    def _check_shapes(self) -> None:
        """Raise for weights per dimension of another width, or that leave nobody in charge of some action."""
        if isinstance(self.weights, PerDimension):
            table = torch.tensor(self.weights.values, dtype=torch.float32)
            if table.shape[1] != self.spec.action_dim:
                raise ConfigError(
                    f"{table.shape[1]} weights per member for actions of {self.spec.action_dim} numbers; give one for each"
                )
            more = self.path_width - table.shape[1]  # padding is mixed as the action is on average
            padding = table.mean(dim=1, keepdim=True).expand(-1, more)
            self.register_buffer("per_dimension", torch.cat([table, padding], dim=1), persistent=False)

    def _draw(
        self,
        condition: Together,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        options: DrawOptions,
    ) -> Tensor:
        if self.total == "any" and isinstance(sampler, VelocitySampler):
            raise ConfigError(
                f"weights that sum to {sums(self.weights)} have no velocity at s = 1, where {type(sampler).__name__} "
                "begins; use DDIM, DDPM, DPMSolver or ReverseSDE"
            )
        if isinstance(sampler, OwnSampler) and not isinstance(sampler, ReverseSDE) and len(self.asked) == 1:
            return self.draw_alone(condition, shape, sampler, options)
        return super()._draw(condition, shape, sampler, options)

    def heading(self) -> str:
        """What it is, for people."""
        return (
            "composition"
            if self.total == "one"
            else f"composition of weights that sum to {sums(self.weights)}"
        )

    def share(self, number: int) -> str:
        """A member's weight, for people."""
        return described(self.weights, number)


def compose(
    members: Mapping[str, Policy] | Sequence[Policy | Part],
    weights: Weights | Sequence[float] | None = None,
    *,
    total: Total = "one",
    sampler: SamplerConfig | OwnSampler | None = None,
    fallback: Fallback = "none",
    execute: int | None = None,
) -> ComposedPolicy:
    """Many policies as one, with nothing trained.

    Args:
        members: policies that answer at any noise level, by name or in a row; diffusion, flow, energy and
            vision-language-action policies, remote ones and compositions alike. The first one that counts decides
            what an action's numbers are.
        weights: one number per member, or `Schedule`, `PerDimension` or `Observed`; even if not given. They sum to 1;
            negative ones push away from a member.
        total: `any` allows weights of another sum, which flatten or sharpen; samplers along the velocity refuse them.
        sampler: how chunks are drawn; if not given a superposition's, the first diffusion member's, or the first member's.
        fallback: `others` draws a chunk without a member that fails, `none` raises.
        execute: actions executed of a chunk; the fewest of any member if not given.

    Raises:
        SensorimotorError: for members or weights that do not fit together, naming them and what differs.
    """
    parts = as_parts(members)
    return ComposedPolicy(
        parts,
        as_weights(weights, len(parts)),
        total=total,
        sampler=sampler,
        fallback=fallback,
        execute=execute,
    )


def compose_conditional(
    unconditional: Policy | Part,
    members: Mapping[str, Policy] | Sequence[Policy | Part],
    weights: Sequence[float],
    *,
    sampler: SamplerConfig | OwnSampler | None = None,
    fallback: Fallback = "none",
) -> ComposedPolicy:
    """`eps_0 + sum_i w_i (eps_i - eps_0)`: classifier-free guidance, and PoCo's form for several conditions.

    All w_i = 1 is Bayes' rule for conditions that are independent given the action, for densities without noise; drawn
    as it is, it is sharper than that. Source: arXiv 2402.02511; the form is that of arXiv 2510.01068, eq. 2 to 5.

    Args:
        unconditional: predicts without the conditions.
        members: predict under one condition each.
        weights: w_i, one per member; they may have any sum.
        sampler: how chunks are drawn, see `compose`.
        fallback: see `compose`.
    """
    parts = as_parts(members)
    if len(weights) != len(parts):
        raise ConfigError(
            f"{len(weights)} weights for {len(parts)} members; give one per member, in their order"
        )
    all_parts = [
        unconditional if isinstance(unconditional, Part) else Part(unconditional, "unconditional"),
        *parts,
    ]
    return compose(all_parts, (1 - sum(weights), *weights), sampler=sampler, fallback=fallback)
