"""A critic picks among a policy's candidates: value guidance, V-GPS (arXiv 2410.13816).

`P(i) = exp(q_i / beta) / sum_j exp(q_j / beta)`; with more and more candidates this draws from `pi(a) exp(Q(a) / beta)`.
It asks a policy for nothing but samples, so any policy will do: one that cannot be composed, one of another process, a
composition.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.errors import ConfigError, SpecError
from ..data.schema import nearest
from ..policies.policy import Policy
from ..rl.critic import Critic
from .fault import MemberError, member_fault
from .ledger import Ledger
from .meeting import reading_more, seen_by
from .spread import Spread, SpreadMeter
from .tree import tree

Recourse = Literal["none", "first"]
_RECOURSES = ("none", "first")


@dataclass(frozen=True)
class Voice:
    """One of the two that decide, as a tree of policies shows it.

    Attributes:
        name: `policy` or `critic`.
        policy: who it is.
    """

    name: str
    policy: Any


class RerankedPolicy(Policy):
    """A policy whose candidates a critic chooses among.

    Attributes:
        policy: draws candidates.
        critic: values them.
        samples: K, candidates per decision.
        temperature: beta; 0 takes the best candidate.
        fallback: `first` takes the first candidate, which is what the policy alone would do, where the critic fails.
        ledger: calls and seconds of `policy` and `critic`.
        faults: `critic` counts the decisions in which it failed, `candidate` those in which it failed for some of them,
            `prefix` those in which candidates could not differ for it.
    """

    fallback: Recourse

    def __init__(
        self, policy: Policy, critic: Critic, *, samples: int, temperature: float, fallback: Recourse
    ) -> None:
        """Made by `rerank`."""
        if samples < 1:
            raise ConfigError(f"samples must be at least 1, got {samples}; 10 or 50 are usual")
        if not 0 <= temperature < math.inf:
            raise ConfigError(
                f"temperature must be at least 0 and finite, got {temperature}; 0 takes the best candidate"
            )
        if fallback not in _RECOURSES:
            raise ConfigError(f"unknown fallback {fallback!r}; {nearest(fallback, _RECOURSES)}")
        super().__init__(reading_more(policy.spec, critic.spec, "policy", "critic"))
        self.rows = scored_rows(policy, critic)
        self.policy, self.critic = policy, critic
        self.samples, self.temperature, self.fallback = samples, temperature, fallback
        self.ledger, self.faults, self._meter = Ledger(), Counter[str](), SpreadMeter()
        self.eval()

    def sample(
        self,
        observation: Mapping[str, Any],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Draw chunks (B, K', H, A), each chosen among `self.samples` candidates, see `Policy.sample`.

        With one candidate each the critic is not asked, and nothing is drawn but the candidates.

        Raises:
            MemberError: if the critic fails and nothing else is allowed, naming it.
        """
        batch = self.check_observation(observation)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        with self.ledger.stage("policy", "sample", rows=batch * samples * self.samples):
            candidates = self.policy.sample(
                seen_by(self.policy.spec, observation),
                samples=samples * self.samples,
                generator=generator,
                prefix=prefix,
            )
        if self.samples == 1:
            return candidates
        values = self._values(observation, candidates).unflatten(1, (samples, self.samples))
        candidates = candidates.unflatten(1, (samples, self.samples))
        chosen = pick(values, self.temperature, generator).to(candidates.device)
        scored = candidates[..., self.rows, :]
        if prefix is not None and prefix.shape[1] >= self.rows.stop:
            self._say(
                "prefix",
                "the committed prefix covers every action that the critic scores: its choice is blind",
            )
        heard = values.isfinite().sum(dim=-1) > 1  # not where the critic failed
        self._meter.add(scored[heard.to(scored.device)], values[heard], chosen.cpu()[heard])
        index = chosen[..., None, None, None].expand(*chosen.shape, 1, *candidates.shape[3:])
        return candidates.gather(2, index).squeeze(2)

    def spread(self) -> Spread:
        """How far candidates were apart so far, and what choosing among them could gain."""
        return self._meter.spread(self.spec.action)

    def _values(self, observation: Mapping[str, Any], candidates: Tensor) -> Tensor:
        """(B, N) values on the CPU; -inf for candidates without a finite one, 0 for all where there is no other."""
        with self.ledger.stage("critic", "value", rows=candidates.shape[0] * candidates.shape[1]):
            try:
                with member_fault("critic", type(self.critic).__name__, "value candidates"), torch.no_grad():
                    found = self.critic.value(
                        seen_by(self.critic.spec, observation), candidates[:, :, self.rows]
                    )
                    if found.shape != candidates.shape[:2]:
                        raise SpecError(
                            f"values have shape {tuple(found.shape)}; needed is {tuple(candidates.shape[:2])}: batch, "
                            "candidates"
                        )
                    values = found.double().cpu()
            except MemberError:
                if self.fallback == "none":
                    raise
                self._say("critic", "the critic failed and the policy's first candidate was taken")
                return self._first(torch.zeros(candidates.shape[:2], dtype=torch.float64))
        finite = values.isfinite()
        if finite.all():
            return values
        lost = ~finite.unflatten(1, (-1, self.samples)).any(dim=2)  # (B, samples)
        if lost.any() and self.fallback == "none":
            raise MemberError(
                f"the critic ({type(self.critic).__name__}) gave no finite value to any of {self.samples} candidates of "
                f"observation {int(lost.nonzero()[0, 0])}; train it again, or let fallback='first' take what the policy does",
                "critic",
            )
        self._say(
            "candidate", "the critic gave values that are not finite; these candidates are never chosen"
        )
        values = values.masked_fill(~finite, -math.inf)
        return torch.where(lost.repeat_interleave(self.samples, dim=1), self._first(values), values)

    def _first(self, values: Tensor) -> Tensor:
        """Values that choose the first of every group of candidates."""
        places = torch.arange(values.shape[1]) % self.samples
        return torch.where(places == 0, 0.0, -math.inf).to(values).expand_as(values)

    def _say(self, what: str, message: str) -> None:
        self.faults[what] += 1
        if self.faults[what] == 1:
            warnings.warn(f"{message}; see `faults`", stacklevel=4)

    @property
    def asked(self) -> list[Voice]:
        """Who decides."""
        return [Voice("policy", self.policy), Voice("critic", self.critic)]

    def heading(self) -> str:
        """What it is, for people."""
        how = "the best" if self.temperature == 0 else f"temperature {self.temperature:.3g}"
        return f"reranked: {how} of {self.samples} candidates"

    def share(self, number: int) -> str:
        """Empty: both decide."""
        return ""

    def __repr__(self) -> str:
        return tree(self)


def rerank(
    policy: Policy,
    critic: Critic,
    *,
    samples: int = 10,
    temperature: float = 0.0,
    fallback: Recourse = "none",
) -> RerankedPolicy:
    """A policy whose chunks a critic chooses among K candidates.

    Args:
        policy: any policy that draws more than one chunk: a composition, a remote one, another reranked one.
        critic: values its next action, or its next few, see `rl.factory.load_critic`.
        samples: K.
        temperature: beta; 0 takes the best candidate, larger values choose more evenly.
        fallback: `first` takes the first candidate where the critic fails, counted in `faults`; `none` raises.

    Raises:
        SpecError: if the two read or command different things, or the critic scores more actions than a chunk holds.
    """
    return RerankedPolicy(policy, critic, samples=samples, temperature=temperature, fallback=fallback)


def scored_rows(policy: Policy, critic: Critic) -> slice:
    """The rows of a policy's chunk that a critic scores: from the present action on.

    Raises:
        SpecError: if the chunk holds fewer.
    """
    first, count = -policy.spec.start, critic.spec.horizon
    if first + count > policy.spec.horizon:
        raise SpecError(
            f"the critic scores {count} actions from now on, and the policy's chunk holds {policy.spec.horizon - first}; "
            f"train a critic of at most {policy.spec.horizon - first} actions (critic.chunk.horizon)"
        )
    return slice(first, first + count)


def pick(values: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Indices (...) of one of K candidates each, from values (..., K); the first of equally good ones at temperature 0.

    Values of -inf are never chosen unless all are.
    """
    if temperature == 0:
        return values.argmax(dim=-1)
    odds = torch.softmax((values - values.amax(dim=-1, keepdim=True)) / temperature, dim=-1)
    shape = odds.shape[:-1]
    drawn = 1 - torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    reached = odds.cumsum(dim=-1)
    # In (0, 1] against sums that end at exactly 1: what has no odds is never met.
    return (reached / reached[..., -1:] < drawn.to(odds)[..., None]).sum(dim=-1)
