"""How far candidates are apart, and whether choosing among them can matter.

A critic can only choose between what a policy proposes. Where candidates are all alike, or worth the same, no critic
helps, however good; gains need a policy that spreads out and is not yet good.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.spec import Field

_ALIKE = 0.02  # candidates this near to each other, as a share of how actions vary at all, hardly differ
_FLAT = (
    0.002  # the same for values; small differences may still be in the right order, those of rounding are not
)
_FEWEST = 10  # decisions that say how actions and values vary at all


@dataclass(frozen=True)
class Spread:
    """What candidates looked like, over many decisions.

    Attributes:
        decisions: how many.
        apart: (A,) standard deviation among the candidates of one decision, physical units.
        share: the same as a share of how actions vary over all decisions, in the dimension where that is most.
        value_apart: standard deviation of values among the candidates of one decision.
        value_share: the same as a share of how values vary over all decisions.
        gain: mean of the best candidate's value minus the mean candidate's; what the critic hopes for.
        changed: share of decisions in which another candidate than the first was taken.
        names: of the action's dimensions, where known.
    """

    decisions: int
    apart: tuple[float, ...]
    share: float
    value_apart: float
    value_share: float
    gain: float
    changed: float
    names: tuple[str, ...] = ()

    def verdict(self) -> str:
        """Whether reranking can help, in a sentence."""
        if self.decisions == 0:
            return "no decision has been made yet"
        if self.share < _ALIKE:
            return (
                f"reranking cannot help: candidates differ by {100 * self.share:.1f} % of how actions vary; raise the "
                "sampler's temperature, or rerank a policy that spreads out more"
            )
        if self.value_share < _FLAT:
            return (
                f"reranking cannot help: values of candidates differ by {100 * self.value_share:.2f} % of how values vary; "
                "the critic tells states apart and not actions"
            )
        return (
            f"candidates differ by {100 * self.share:.0f} % of how actions vary, their values by "
            f"{100 * self.value_share:.0f} % of how values vary; another than the first was taken in "
            f"{100 * self.changed:.0f} % of {self.decisions:,} decisions"
            + (
                f", which are few to judge by; {_FEWEST} or more are better"
                if self.decisions < _FEWEST
                else ""
            )
        )


class SpreadMeter:
    """Running sums behind a `Spread`."""

    def __init__(self) -> None:
        self.decisions = 0
        self._within = self._square = self._mean = torch.zeros(0)
        self._values = torch.zeros(6, dtype=torch.float64)

    def add(self, scored: Tensor, values: Tensor, chosen: Tensor) -> None:
        """Take note of decisions.

        Args:
            scored: (..., K, n, A) the actions that were valued.
            values: (..., K), -inf for candidates without a value.
            chosen: (...) what was taken.
        """
        grouped = scored.detach().double().cpu().flatten(0, -4)
        if len(grouped) == 0:
            return
        actions = grouped.flatten(1, 2)  # (decisions, K n, A)
        worth = values.detach().double().cpu().flatten(0, -2)
        sums = (
            grouped.var(dim=1).mean(dim=1).sum(dim=0),
            actions.square().mean(dim=1).sum(dim=0),
            actions.mean(dim=1).sum(dim=0),
        )
        if self.decisions == 0:
            self._within, self._square, self._mean = sums
        else:
            self._within, self._square, self._mean = (
                a + b for a, b in zip((self._within, self._square, self._mean), sums, strict=True)
            )
        self.decisions += len(actions)
        finite = worth.isfinite()
        count = finite.sum(dim=1).clamp_min(1)
        filled = worth.masked_fill(~finite, 0.0)
        mean = filled.sum(dim=1) / count
        variance = (filled.square().sum(dim=1) - count * mean.square()) / (count - 1).clamp_min(1)
        best = worth.masked_fill(~finite, -torch.inf).amax(dim=1)
        best = torch.where(best.isfinite(), best, mean)
        self._values += torch.stack(
            [
                variance.clamp_min(0).sqrt().sum(),
                (best - mean).sum(),
                mean.sum(),
                mean.square().sum(),
                variance.clamp_min(0).sum(),
                (chosen.cpu().flatten() != 0).double().sum(),
            ]
        )

    def spread(self, action: Field) -> Spread:
        """What was noted so far."""
        n = self.decisions
        if n == 0:
            return Spread(0, (), 0.0, 0.0, 0.0, 0.0, 0.0, action.names)
        within, square, mean = self._within / n, self._square / n, self._mean / n
        total = (square - mean.square()).clamp_min(0)
        share = torch.where(total > 0, (within / total.clamp_min(1e-300)).sqrt().clamp_max(1.0), 0.0)
        value_apart, gain, value_mean, value_square, value_within, changed = (self._values / n).tolist()
        value_total = value_square - value_mean**2 + value_within
        return Spread(
            decisions=n,
            apart=tuple(within.sqrt().tolist()),
            share=float(share.max()),
            value_apart=value_apart,
            value_share=(value_within / value_total) ** 0.5 if value_total > 0 else 0.0,
            gain=gain,
            changed=changed,
            names=action.names,
        )
