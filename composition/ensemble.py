"""Policies that answer together: what all compositions share, whatever they make of their members' answers."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ..policies.origin import OffsetActions, origin_of
from ..policies.padding import padded
from ..policies.policy import GenerativePolicy
from ..policies.sampling import (
    DrawOptions,
    FlowEuler,
    OwnSampler,
    SamplerConfig,
    ScheduleSampler,
    VelocitySampler,
)
from .fault import (
    Fallback,
    MemberError,
    check_fallback,
    check_finite,
    count_fault,
    drawn_without_failing,
    is_finite,
    member_fault,
    without,
)
from .ito import ReverseSDE, Step, follow
from .ledger import Ledger
from .meeting import Part, coverage, meet
from .member import Encoded, Member, Question
from .space import ActionSpace, Passage, common_space
from .team import Joint, Team, teams
from .together import Together
from .tree import tree


class Ensemble(OffsetActions, GenerativePolicy):
    """Members in one space of actions.

    Attributes:
        asked: the members, as `members` too.
        teams: those of them that can be asked in one go.
        ledger: calls and seconds per member and stage.
        faults: how often each member failed and the others went on.
        fallback: `others` lets a chunk be drawn without a member that fails; `none` raises.
        width: W, numbers per action that noise is carried for: A, or more where members pad.
        cover: (M, H, W) bool, which numbers each member answers for; None where all answer for all.
    """

    cover: Tensor | None
    fallback: Fallback

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        sampler: SamplerConfig | OwnSampler | None,
        fallback: Fallback,
        execute: int | None,
    ) -> None:
        """Bring members with names together.

        Raises:
            SpecError: if they read or command different things.
            NormalizerError: if they scale actions so differently that their noised actions cannot be compared.
        """
        check_fallback(fallback)
        spec, windows = meet(parts, execute=execute)
        super().__init__(spec)
        policies = [part.policy for part in parts if isinstance(part.policy, GenerativePolicy)]
        spaces = [ActionSpace.of(policy) for policy in policies]
        space = common_space(spaces, windows, (spec.horizon, spec.action_dim))
        self.normalizer, self.relative = space.normalizer(), space.relative
        self.ledger, self.faults, self.fallback = Ledger(), Counter[str](), fallback
        names = [part.name or "" for part in parts]
        self.asked = [
            Member(
                policy,
                name,
                Passage.between(space, own, window, name=name, reference=names[0]),
                spec,
                self.ledger,
            )
            for policy, name, own, window in zip(policies, names, spaces, windows, strict=True)
        ]
        self.members, self.teams = nn.ModuleList(self.asked), teams(self.asked)
        widths = [policy.path_width for policy in policies]
        cover = coverage(windows, widths, spec.horizon, spec.action_dim)
        self.width = cover.shape[-1]
        self.register_buffer("cover", None if cover.all() else cover, persistent=False)
        self.sampler = sampler or _sampler_of(policies)
        self.eval()

    @property
    def names(self) -> list[str]:
        """Of the members."""
        return [member.name for member in self.asked]

    @property
    def path_width(self) -> int:
        """W, see `width`."""
        return self.width

    @property
    def evaluations(self) -> int:
        """Network evaluations that its members have made so far to answer, encoding left out."""
        return sum(member.evaluations for member in self.asked)

    def encode(self, observation: Mapping[str, Any]) -> Together:
        """What every member knows of B observations, each encoded once."""
        batch = self.check_observation(observation)
        origin = None
        if self.relative is not None:
            origin = origin_of(observation[self.relative], self.spec.action_dim).to(
                self.device, torch.float32
            )
        parts: list[Encoded | None] = []
        failed: MemberError | None = None
        for member in self.asked:
            try:
                with member_fault(member.name, member.kind, "encode the observation"):
                    parts.append(member.encode(observation, origin, self.device))
            except MemberError as error:
                if self.fallback == "none":
                    raise
                parts.append(None)
                count_fault(self.faults, member.name)
                failed = error
        if failed is not None and not any(parts):
            raise failed
        return Together(parts, batch, origin)

    def ask(self, number: int, question: Question, x: Tensor, s: Tensor, condition: Together) -> Tensor:
        """One member's answer (B', H, A) in the composition's space, 0 where it has no say."""
        with self._fault_of(number, question, condition):
            return check_finite(self.asked[number].ask(question, x, s, condition.known(number)))

    def ask_all(
        self, numbers: Sequence[int], question: Question, x: Tensor, s: Tensor, condition: Together
    ) -> list[Tensor]:
        """The answers of several members, in one go of those that can be; what is made of them is for `checked`."""
        found: dict[int, Tensor] = {}
        for team in self.teams:
            joint = self._joint(team, numbers, condition)
            if joint is not None:
                with member_fault(team.name, "together", f"predict the {question}"):
                    answers = joint.ask(question, x, s, [condition.known(n) for n in team.numbers])
                found |= zip(team.numbers, answers, strict=True)
        for number in numbers:
            if number not in found:
                with self._fault_of(number, question, condition):
                    found[number] = self.asked[number].ask(question, x, s, condition.known(number))
        return [found[number] for number in numbers]

    def checked(
        self,
        made: Tensor,
        answers: Sequence[Tensor],
        numbers: Sequence[int],
        question: Question,
        condition: Together,
    ) -> Tensor:
        """What was made of the answers of several members, which is not finite where one of them is not."""
        if not is_finite(made):
            for number, answer in zip(numbers, answers, strict=True):
                with self._fault_of(number, question, condition):
                    check_finite(answer)
        return made

    def _joint(self, team: Team, numbers: Sequence[int], condition: Together) -> Joint | None:
        """A team that is wanted as a whole; none where gradients may be asked of single members' weights."""
        if torch.is_grad_enabled() or not all(n in numbers for n in team.numbers):
            return None
        if team not in condition.joints:
            condition.joints[team] = team.joint([condition.known(n) for n in team.numbers])
        return condition.joints[team]

    @contextmanager
    def _fault_of(self, number: int, question: Question, condition: Together) -> Iterator[None]:
        """Name the member whose answer fails inside, and say how to go on without it."""
        member = self.asked[number]
        try:
            with member_fault(member.name, member.kind, f"predict the {question}"):
                yield
        except MemberError as error:
            if self.fallback == "others":
                error.ways.append(lambda: without(condition, number, member.name, self.faults))
            raise

    def draw_normalized(
        self,
        condition: Together,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        **options: Unpack[DrawOptions],
    ) -> Tensor:
        """Normalised chunks (B', H, A), see `GenerativePolicy.draw_normalized`.

        A trace counts the evaluations of all members together.
        """
        options["generator"] = generator = options.get("generator") or torch.Generator().manual_seed(0)
        before = self.evaluations
        with torch.no_grad():
            drawn = drawn_without_failing(
                lambda: self._draw(condition, shape, sampler, options.copy()), generator
            )
        if (trace := options.get("trace")) is not None:
            trace.evaluations = torch.full((shape[0],), self.evaluations - before)
        return drawn

    def _draw(
        self,
        condition: Together,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        options: DrawOptions,
    ) -> Tensor:
        if isinstance(sampler, ReverseSDE):
            wide = (*shape[:-1], self.width)
            drawn = follow(self, condition, wide, sampler, **padded(options, self.width))
            return drawn[..., : shape[-1]]
        return super().draw_normalized(condition, shape, sampler, **options)

    @abstractmethod
    def heading(self) -> str:
        """What it is, for people."""

    @abstractmethod
    def share(self, number: int) -> str:
        """A member's weight, for people."""

    def draw_alone(
        self, condition: Together, shape: tuple[int, int, int], sampler: OwnSampler, options: DrawOptions
    ) -> Tensor:
        """What the only member draws in a way of its own."""
        (member,), (part,) = self.asked, condition.parts
        with (
            member_fault(member.name, member.kind, "draw"),
            self.ledger.stage(member.name, "draw", rows=shape[0]),
        ):
            assert part is not None
            return check_finite(member.policy.draw_normalized(part.own, shape, sampler, **options))

    def watch(self, condition: Together, step: Step | None) -> None:
        """Tell superpositions inside which step comes next; None before the first."""
        for member, part in zip(self.asked, condition.parts, strict=True):
            if isinstance(member.policy, Ensemble) and part is not None:
                member.policy.watch(part.own, None if step is None else member.inside(step))

    def __repr__(self) -> str:
        return tree(self)


def _sampler_of(policies: Sequence[GenerativePolicy]) -> SamplerConfig | OwnSampler:
    """The members' own way of drawing: a superposition's or a diffusion member's, which know one only, or any other's."""
    if len(policies) == 1:
        return policies[0].sampler
    own = [policy.sampler for policy in policies]
    for kind in (ReverseSDE, ScheduleSampler, VelocitySampler):
        for sampler in own:
            if isinstance(sampler, kind):
                return sampler
    return FlowEuler()
