"""One policy inside a composition: asked in the composition's space, answering in it, and kept account of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..data.spec import Spec
from ..policies.path import widened
from ..policies.policy import GenerativePolicy
from .ito import Step
from .ledger import Ledger
from .meeting import seen_by
from .space import Passage, carry, carry_velocity_back, origin_in

Question = Literal["noise", "velocity"]


def answer_of(policy: GenerativePolicy, question: Question, x: Tensor, s: Tensor, condition: Any) -> Tensor:
    """What a policy answers at x_s in its own space."""
    if question == "noise":
        return policy.predict_noise(x, s, condition)
    return policy.predict_velocity(x, s, condition)


@dataclass(frozen=True)
class Encoded:
    """What a member knows of B' rows: a `Condition`.

    Attributes:
        own: its own condition.
        shift: b of the passage to its space, (h, a), (B', h, a) or None.
    """

    own: Any
    shift: Tensor | None

    def repeat(self, samples: int) -> Self:
        """Each row `samples` times in a row."""
        shift = self.shift
        if shift is not None and shift.ndim == 3:
            shift = shift.repeat_interleave(samples, dim=0)
        return replace(self, own=self.own.repeat(samples), shift=shift)


class Member(nn.Module):
    """A policy and its place in a composition.

    Attributes:
        policy: any generative policy, a composition too.
        name: unique among the members.
        passage: from the composition's space to the policy's.
    """

    def __init__(
        self, policy: GenerativePolicy, name: str, passage: Passage, common: Spec, ledger: Ledger
    ) -> None:
        super().__init__()
        self.policy, self.name, self.passage, self.ledger = policy, name, passage, ledger
        window = passage.window
        self.whole = window.whole(common.horizon, common.action_dim)
        self.columns = list(window.columns)
        self.width = common.action_dim

    @property
    def kind(self) -> str:
        """Class of its policy."""
        return type(self.policy).__name__

    @property
    def evaluations(self) -> int:
        """Network evaluations it has made so far to answer."""
        inner = getattr(self.policy, "evaluations", None)
        return self.ledger.calls(self.name) * self.policy.evaluations_per_answer if inner is None else inner

    @property
    def plain(self) -> bool:
        """Whether the composition's chunks are its own: nothing to cut, nothing to carry over."""
        return self.whole and self.passage.d == 1.0 and self.passage.b is None

    def encode(self, observation: Mapping[str, Any], origin: Tensor | None, device: torch.device) -> Encoded:
        """Encode what it reads of B observations whose actions the composition, on `device`, counts from `origin` (B, A)."""
        with self.ledger.stage(self.name, "encode"):
            own = self.policy.encode(seen_by(self.policy.spec, observation))
        mine = origin_in(own)
        same = (
            mine is not None
            and origin is not None
            and mine.shape == origin.shape
            and torch.equal(mine, origin)
        )
        shift = self.passage.b if same else self.passage.shift(mine, origin)
        return Encoded(own, None if shift is None else shift.to(device))

    def ask(self, question: Question, x: Tensor, s: Tensor, condition: Encoded) -> Tensor:
        """eps_hat or eps_hat - a_hat at x_s (B', H, A or more with padding); zeros where it has no say."""
        point, at = self.enter(x, s, condition)
        began = self.ledger.clock()
        try:
            answer = answer_of(self.policy, question, point, at, condition.own)
        finally:
            self.ledger.add(began, self.name, stage=question, rows=len(x))
        return self.leave(question, answer, point, at, x, condition)

    def enter(self, x: Tensor, s: Tensor, condition: Encoded) -> tuple[Tensor, Tensor]:
        """The same point, and its place on the path, in the policy's space."""
        return carry(self._cut(x), s, self.passage.d, condition.shift)

    def leave(
        self, question: Question, answer: Tensor, point: Tensor, at: Tensor, x: Tensor, condition: Encoded
    ) -> Tensor:
        """The policy's answer at such a point, in the composition's space."""
        if question == "velocity":
            answer = carry_velocity_back(point, at, answer, self.passage.d, condition.shift)
        return self._paste(answer, x)

    def inside(self, step: Step) -> Step:
        """A step of the reverse diffusion in the policy's space, up to a shift, which changes no increment."""
        if not self.whole:
            step = replace(step, y=self._cut(step.y), n=self._cut(step.n))
        return step.scaled(self.passage.d)

    def _cut(self, x: Tensor) -> Tensor:
        """Its rows and columns; of padded actions as many numbers as it pads to."""
        if self.whole:
            return x if x.shape[-1] == self.width else x[..., : self.policy.path_width]
        return x[:, self.passage.window.rows][..., self.columns]

    def _paste(self, answer: Tensor, x: Tensor) -> Tensor:
        if answer.shape == x.shape:
            return answer
        if self.whole:
            return widened(answer, x.shape[-1])
        out = torch.zeros_like(x)
        out[:, self.passage.window.rows, self.columns] = answer
        return out
