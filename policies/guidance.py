"""Guided generation: a chunk drawn so that it continues the one under way.

Real-time chunking, arXiv 2506.07339. At every step `a_hat = x - s v`, `e = W (previous - a_hat)` and
`v' = v - g J^T e` with `J = d a_hat / d x` and `g = min((s^2 + (1 - s)^2) / (s (1 - s)), beta)`; the paper counts time as
tau = 1 - s and adds the same term. Any policy that knows a velocity can be guided, whatever its sampler asks for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.errors import ConfigError, SpecError
from ..data.schema import nearest
from .path import action_from_velocity, spread

WeightSchedule = Literal["linear", "exp"]
Jacobian = Literal["vjp", "identity"]
_SCHEDULES, _JACOBIANS = ("linear", "exp"), ("vjp", "identity")


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How strongly a chunk is drawn to the previous one.

    Attributes:
        beta: upper bound of the guidance; the number of sampling steps is a good start.
        schedule: how the weight falls from the frozen actions to the end of the overlap.
        jacobian: `vjp` sends the error back through the network, as the paper does; `identity` takes it as it is,
            as LeRobot does, which is cheaper and holds on harder.
    """

    beta: float = 5.0
    schedule: WeightSchedule = "exp"
    jacobian: Jacobian = "vjp"

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"beta must be positive and finite, got {self.beta}; 5 to 10 are usual")
        if self.schedule not in _SCHEDULES:
            raise ConfigError(f"unknown schedule {self.schedule!r}; {nearest(self.schedule, _SCHEDULES)}")
        if self.jacobian not in _JACOBIANS:
            raise ConfigError(f"unknown jacobian {self.jacobian!r}; {nearest(self.jacobian, _JACOBIANS)}")


@dataclass(frozen=True, kw_only=True)
class ChunkGuide(Guidance):
    """The chunk under way, as the next one sees it.

    Attributes:
        previous: (B, H, A) physical units, shifted so that row 0 is due with the new chunk's first action; rows from
            `end` on are not looked at.
        delay: d, the first rows, which will have been executed when the new chunk arrives; an int or (B,).
        end: where the previous chunk ends; an int or (B,). LeRobot calls it `execution_horizon`.
    """

    previous: Tensor
    delay: int | Tensor
    end: int | Tensor

    @classmethod
    def of(cls, guidance: Guidance, *, previous: Tensor, delay: int | Tensor, end: int | Tensor) -> Self:
        """The guide of these settings."""
        settings: dict[str, Any] = {f.name: getattr(guidance, f.name) for f in fields(Guidance)}
        return cls(previous=previous, delay=delay, end=end, **settings)

    def check(self, batch: int, horizon: int, width: int) -> None:
        """Raise unless the guide fits chunks (B, H, A)."""
        if self.previous.shape != (batch, horizon, width):
            raise SpecError(
                f"the previous chunk has shape {tuple(self.previous.shape)}; needed is {(batch, horizon, width)}: "
                "batch, horizon, action width"
            )
        for name in ("delay", "end"):
            value = torch.as_tensor(getattr(self, name))
            if value.ndim > 1 or (value.ndim == 1 and len(value) != batch):
                raise SpecError(f"{name} has shape {tuple(value.shape)}; allowed is one number, or {batch}")
            if value.min() < 0 or value.max() > horizon:
                raise SpecError(f"{name} must lie in 0..{horizon}, got {value.tolist()}")

    def weights(self) -> Tensor:
        """(H,) or (B, H) weights of the previous chunk's rows."""
        return overlap_weights(self.previous.shape[1], self.delay, self.end, self.schedule)


def overlap_weights(horizon: int, delay: int | Tensor, end: int | Tensor, schedule: WeightSchedule) -> Tensor:
    """How much each row of the previous chunk counts: 1 up to the delay, then falling, 0 from `end` on.

    With d the lesser of delay and end, `w_i = clip((d - 1 - i) / (end - d + 1) + 1, 0, 1)`; `exp` multiplies by
    `(e^w - 1) / (e - 1)`. Source: the release of arXiv 2506.07339.

    Returns:
        (H,), or (B, H) where delay or end are (B,).
    """
    i = torch.arange(horizon)
    stop = torch.as_tensor(end)[..., None]
    d = torch.minimum(torch.as_tensor(delay)[..., None], stop)
    w = ((d - 1 - i) / (stop - d + 1) + 1).clamp(0, 1)
    if schedule == "exp":
        w = w * torch.expm1(w) / math.expm1(1)
    return torch.where(i < stop, w, 0.0)


def guidance_strength(s: Tensor, beta: float) -> Tensor:
    """How much of the correction is applied at s: beta at both ends of the path, at least 2 in its middle."""
    return ((s**2 + (1 - s) ** 2) / (s * (1 - s))).clamp_max(beta)


@dataclass(frozen=True)
class Pull:
    """A guide in the space of x, for B' rows.

    Attributes:
        target: (B', H, A) normalised previous chunk.
        weight: (B', H, 1) or (B', H, A).
        guidance: how strongly.
        clip: bound on predicted actions before they are guided; None for none.
    """

    target: Tensor
    weight: Tensor
    guidance: Guidance
    clip: float | None = None

    @classmethod
    def make(cls, guide: ChunkGuide, target: Tensor) -> Self | None:
        """The guide with its normalised chunk (B', H, A), B' = B * K; None where nothing is to be guided."""
        weight = guide.weights().to(target)
        if not weight.any():
            return None
        if weight.ndim == 2:
            weight = weight.repeat_interleave(len(target) // len(weight), dim=0)
        weight = weight[..., None].expand(len(target), -1, 1)
        # Rows without a weight may hold anything, and 0 times anything is not always 0.
        return cls(torch.where(weight > 0, target, 0.0), weight, guide)

    def widened(self, width: int) -> Self:
        """The same for chunks of more numbers per action, the further ones of which are left alone."""
        more = (0, width - self.target.shape[-1])
        weight = F.pad(self.weight.expand_as(self.target), more)
        return replace(self, target=F.pad(self.target, more), weight=weight)

    def velocity(self, ask: Callable[[Tensor], Tensor], x: Tensor, s: Tensor) -> Tensor:
        """The guided velocity at x_s (B', H, A), where `ask` is the policy's own."""

        def predict(point: Tensor) -> tuple[Tensor, Tensor]:
            velocity = ask(point)
            return action_from_velocity(point, s, velocity), velocity

        # Not autograd.grad, which fails under inference_mode.
        if self.guidance.jacobian == "vjp":
            answer: Any = torch.func.vjp(predict, x, has_aux=True)
            action, back, velocity = answer
        else:
            action, velocity = predict(x)
            back = None
        if self.clip is not None:
            action = action.clamp(-self.clip, self.clip)
            velocity = (x - action) / spread(s, x)
        error = self.weight * (self.target - action)
        correction = error if back is None else back(error)[0]
        return velocity - guidance_strength(spread(s, x), self.guidance.beta) * correction
