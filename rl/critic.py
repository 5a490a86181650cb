"""What every critic has in common: values of actions, in physical units."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..data.errors import SpecError
from ..data.spec import Spec
from ..training.checkpoint import Source


class Critic(nn.Module):
    """Tells how good actions are.

    Attributes:
        spec: what it reads and the actions it scores: `horizon` of them, from the present one on; 1 for a critic of
            single actions.
        source: the checkpoint it was loaded from, or None.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.start != 0:
            raise SpecError(
                f"a critic scores actions from the present one on, got a spec whose first action is {spec.start}; use start 0"
            )
        self.spec = spec
        self.source: Source | None = None

    @abstractmethod
    def value(self, observation: Mapping[str, Any], actions: Tensor) -> Tensor:
        """Values (B, K) of K candidates for each of B observations; differentiable in the actions.

        Args:
            observation: key -> (B, O, *shape), physical units; texts are lists of B.
            actions: (B, K, n, A), physical units, n being the spec's horizon; the first is executed next.

        Raises:
            SpecError: if observations or actions have another shape.
        """
