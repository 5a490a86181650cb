"""Members asked in one go: networks of one shape and different weights, as one forward pass over stacked weights.

Only residual MLPs are stacked: at few rows they cost their calls more than their arithmetic, the narrow ones most
(benchmarks/composition_cost.py). Others are asked one by one: a convolution over stacked weights is no faster than two
convolutions, and vmap cannot follow torch's transformer layers.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from ..policies.diffusion import DiffusionPolicy
from ..policies.flow import FlowPolicy
from ..policies.mlp import ResidualMLP
from ..policies.network import Features, NetworkConfig
from ..policies.policy import GenerativePolicy
from ..policies.reflow import ReflowPolicy
from ..policies.stacked_mlp import StackedMLP
from .member import Encoded, Member, Question, answer_of

_FAMILIES = (FlowPolicy, ReflowPolicy, DiffusionPolicy)  # whose answers are their trunk's, row by row
_TRAINING = {"sampler", "time", "teacher", "solver"}  # of no effect on an answer
_UNASKED = {part.name for part in fields(NetworkConfig)} - {"trunk"} | _TRAINING


@dataclass(frozen=True)
class Joint:
    """A team that knows B' rows of observations.

    Attributes:
        members: who is asked.
        policy: the first member's policy, with the trunks of all in place of its own.
        condition: of M * B' rows, the first member's first.
    """

    members: Sequence[Member]
    policy: GenerativePolicy
    condition: Features

    @classmethod
    def of(cls, members: Sequence[Member], policy: GenerativePolicy, parts: Sequence[Encoded]) -> Self:
        """What the members know, laid end to end; observation steps are flat, since members may count them apart."""
        return cls(members, policy, Features(torch.cat([part.own.values.flatten(1) for part in parts])))

    def ask(self, question: Question, x: Tensor, s: Tensor, parts: Sequence[Encoded]) -> list[Tensor]:
        """What each member would answer, see `Member.ask`."""
        team = list(zip(self.members, parts, strict=True))
        entered = [member.enter(x, s, part) for member, part in team]
        levels = entered[0][1]
        ledger = self.members[0].ledger
        began = ledger.clock()
        points = torch.cat([point for point, _ in entered])
        at = levels if levels.ndim == 0 else levels.repeat(len(team))
        answers = answer_of(self.policy, question, points, at, self.condition).chunk(len(team))
        ledger.add(began, *(member.name for member in self.members), stage=question, rows=len(x))
        return [
            member.leave(question, answer, point, at, x, part)
            for (member, part), answer, (point, at) in zip(team, answers, entered, strict=True)
        ]


class Team:
    """Members whose networks can be stacked; the weights are then held twice.

    Attributes:
        numbers: their places in the composition.
        members: in that order.
        name: all their names.
    """

    def __init__(self, numbers: Sequence[int], members: Sequence[Member]) -> None:
        """Made by `teams`."""
        self.numbers, self.members = tuple(numbers), list(members)
        self.name = "+".join(member.name for member in members)
        self._policy: GenerativePolicy | None = None
        self._seen: Any = None

    def joint(self, parts: Sequence[Encoded]) -> Joint | None:
        """The team before B' rows; None where its members must be asked one by one."""
        policies: list[Any] = [member.policy for member in self.members]
        weights = [p for policy in policies for p in policy.trunk.parameters()]
        if any(policy.training for policy in policies) or any(w.is_inference() for w in weights):
            return None  # dropout; weights that do not say when they change
        if torch.is_autocast_enabled(weights[0].device.type):
            return None  # a stack knows no layers that stay precise
        # Weights moved or updated since are stacked again; writing through `.data` is not noticed.
        seen = [(w.data_ptr(), w._version) for w in weights]
        if seen != self._seen:
            together = len({(w.device, w.dtype) for w in weights}) == 1
            self._policy, self._seen = _stacked(policies) if together else None, seen
        return None if self._policy is None else Joint.of(self.members, self._policy, parts)


def teams(members: Sequence[Member]) -> list[Team]:
    """The members of a composition that can be asked together, in groups of two or more."""
    groups: dict[Any, list[int]] = {}
    for number, member in enumerate(members):
        kind = _kind(member)
        if kind is not None:
            groups.setdefault(kind, []).append(number)
    return [Team(group, [members[n] for n in group]) for group in groups.values() if len(group) > 1]


def _kind(member: Member) -> Any:
    """Equal for members that can be stacked: same family, shapes and noise levels; None for those that cannot."""
    policy = member.policy
    if type(policy) not in _FAMILIES or type(policy.trunk) is not ResidualMLP:
        return None
    asked = [part.name for part in fields(policy.config) if part.name not in _UNASKED]
    settings = tuple(getattr(policy.config, name) for name in asked)
    shapes = tuple(tuple(p.shape) for p in policy.trunk.parameters())
    return type(policy), settings, shapes, policy.spec.horizon, policy.spec.action_dim, member.passage.d


def _stacked(policies: Sequence[Any]) -> GenerativePolicy:
    """The first policy with the trunks of all."""
    twin = copy.copy(policies[0])
    twin._modules = policies[0]._modules | {"trunk": StackedMLP([policy.trunk for policy in policies])}
    return twin
