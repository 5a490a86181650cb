"""The ends of the action expert: noised actions and flow time to tokens, and tokens to a velocity."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ...data.errors import SpecError
from ..embedding import periodic

_STEPS = 1000.0  # `periodic` counts thousandths of the path


class ActionExpert(nn.Module):
    """Projections around the expert's layers.

    With `concat`, time features are joined to every action and mixed in by two layers; with `adarms`, two layers make
    of them the condition of the expert's norms.
    """

    def __init__(self, width: int, action_width: int, fusion: Literal["concat", "adarms"]) -> None:
        """Tokens of `width`, actions of `action_width` numbers."""
        super().__init__()
        self.width, self.fusion = width, fusion
        self.action_in = nn.Linear(action_width, width)
        self.time_in = nn.Linear(2 * width if fusion == "concat" else width, width)
        self.time_out = nn.Linear(width, width)
        self.action_out = nn.Linear(width, action_width)

    def tokens(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor | None]:
        """Noised actions (B, H, action_width) to tokens (B, H, width) and a condition (B or 1, width) or None.

        The flow time s is (B,), or (1,) for all rows, and is then looked at once.
        """
        actions = self.action_in(x)
        time = periodic(_STEPS * s.to(x.device), self.width).to(actions)
        if self.fusion == "adarms":
            return actions, F.silu(self.time_out(F.silu(self.time_in(time))))
        # One layer over both side by side, taken apart so that the time's part is not repeated for every action.
        of_action, of_time = self.time_in.weight.split(self.width, dim=1)
        when = F.linear(time, of_time, self.time_in.bias)[:, None]
        return self.time_out(F.silu(F.linear(actions, of_action) + when)), None

    def velocity(self, tokens: Tensor) -> Tensor:
        """Tokens (B, H, width) to velocities (B, H, action_width)."""
        return self.action_out(tokens)


def check_width(name: str, wanted: int | None, needed: int) -> int:
    """The width inside the network, at least what is needed."""
    if wanted is not None and wanted < needed:
        raise SpecError(
            f"{name} {wanted} is too narrow for the spec, which has {needed} numbers; use {needed} or more"
        )
    return wanted or needed
