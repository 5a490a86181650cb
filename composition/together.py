"""What the members of a composition know while chunks are drawn."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from .member import Encoded
from .team import Joint, Team


@dataclass
class Together:
    """What the members of a composition know of B' rows: a `Condition`.

    Attributes:
        parts: of each member; None for one that failed.
        rows: B'.
        origin: (B, A) what the composition's actions are relative to, or None.
        weights: (B', M) where weights depend on what is seen.
        track: what a superposition remembers of the chunks under way.
        joints: of the members that are asked together; None where they cannot be.
    """

    parts: list[Encoded | None]
    rows: int
    origin: Tensor | None = None
    weights: Tensor | None = None
    track: Any = None
    joints: dict[Team, Joint | None] = field(default_factory=dict, repr=False)

    def known(self, number: int) -> Encoded:
        """What a member that did not fail knows."""
        part = self.parts[number]
        assert part is not None
        return part

    def repeat(self, samples: int) -> Self:
        """Each row `samples` times in a row."""
        return replace(
            self,
            parts=[part if part is None else part.repeat(samples) for part in self.parts],
            rows=self.rows * samples,
            weights=None if self.weights is None else self.weights.repeat_interleave(samples, dim=0),
            joints={},
        )
