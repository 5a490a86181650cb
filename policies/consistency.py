"""Consistency Policy (arXiv 2405.07503): a network that jumps along a trained policy's way from noise to action.

A consistency trajectory model (arXiv 2310.02279): `G(x, t, s)` is where the way through x at level t is at level s. The
teacher makes one small step t -> u, and the student must arrive at the same action from both ends of it:

    L = huber(G'(G(x_t, t, s), s, 0), G'(G'(x_u, u, s), s, 0)) + w lambda(t') |g(a + t' eps, t', t') - a|^2,

with G' the same network with its weights held fixed, and 0 the smallest level; no gradient is taken of the second
argument. Levels, jumps G, lines g and the weight lambda are those of `edm.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from ..data.windows import Batch
from ..training.held_out import evaluation_mode
from .edm import (
    SMALLEST,
    denoising_weight,
    draw_levels,
    estimate,
    from_path,
    heun_step,
    jump,
    noise_levels,
)
from .embedding import periodic
from .network import Features, NetworkConfig, draw
from .path import hold, noise_from_action, spread
from .policy import GenerativePolicy
from .sampling import DrawOptions, OwnSampler, SamplerConfig
from .teacher import Student
from .trunk import TrunkConfig, build_trunk
from .unet import UNetConfig

_TARGET_WIDTH = 32  # features of the level that is jumped to


@dataclass(frozen=True, kw_only=True)
class ConsistencyJump(OwnSampler):
    """Jump from noise to an action; for a better one, add noise to it again and jump again.

    Attributes:
        steps: jumps, one network call each.
        chain: bins to whose level noise is added before the second jump, the third, ...; later ones are less noisy.
            Empty for bins at even distances in the less noisy half.
        clip: bound on the action after every jump, in normalised numbers; None for no bound.
        temperature: standard deviation of all noise, as a share of the level's; below 1, samples keep closer to the
            likely ones.
    """

    steps: int = 1
    chain: tuple[int, ...] = ()
    clip: float | None = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"ConsistencyJump needs steps of at least 1, got {self.steps}")
        if self.chain and len(self.chain) != self.steps - 1:
            raise ConfigError(
                f"chain must name a bin for each of the {self.steps - 1} jumps after the first, got {self.chain}; "
                "leave it empty for even distances in the less noisy half"
            )
        if any(a >= b for a, b in zip((0, *self.chain), self.chain, strict=False)):
            raise ConfigError(f"chain must hold increasing bins from 1 on, got {self.chain}")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be positive or none, got {self.clip}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be at least 0 and finite, got {self.temperature}")

    def levels(self, bins: int) -> list[float]:
        """The level before each jump, on a grid of so many bins.

        Raises:
            ConfigError: for a chain that leaves the grid.
        """
        chain = self.chain or [round((bins - 1) * (1 + i / self.steps) / 2) for i in range(1, self.steps)]
        if chain and not chain[-1] < bins:
            raise ConfigError(f"the policy has bins 0..{bins - 1}; chain {tuple(chain)} leaves them")
        return noise_levels(bins)[[0, *chain]].tolist()


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(NetworkConfig):
    """A student that needs one jump where its teacher needs many steps.

    Attributes:
        teacher: folder of the run or checkpoint of a diffusion or flow policy, needed in training only. The
            student takes over its normaliser, and must share its spec.
        trunk: the network.
        bins: levels of the teacher's steps; the teacher makes one step between neighbours.
        data_std: standard deviation of normalised actions; about 0.5 where they are scaled to [-1, 1], 1 for `mean_std`.
        denoising: weight w of the loss that ties the student to the data. Without it the student agrees with itself
            on something else than the teacher; with much more of it jumps end between the modes.
        sampler: how chunks are sampled.
    """

    teacher: str | None = None
    trunk: TrunkConfig = field(default_factory=UNetConfig)
    bins: int = 80
    data_std: float = 0.5
    denoising: float = 0.1
    sampler: ConsistencyJump | SamplerConfig = field(default_factory=ConsistencyJump)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 2:
            raise ConfigError(f"bins must be at least 2, got {self.bins}")
        if not 0 < self.data_std < math.inf:
            raise ConfigError(f"data_std must be positive and finite, got {self.data_std}")
        if not 0 <= self.denoising < math.inf:
            raise ConfigError(f"denoising must be at least 0 and finite, got {self.denoising}")
        if isinstance(self.sampler, ConsistencyJump):
            self.sampler.levels(self.bins)
            clip, scaled = self.sampler.clip, self.normalizer.action
            if clip is not None and clip <= 1 and scaled not in ("min_max", "quantile"):
                raise ConfigError(
                    f"clip {clip} cuts actions off when they are scaled by {scaled!r}, as this policy or its teacher "
                    "does; set sampler.clip to none, or to a few standard deviations"
                )


def pseudo_huber(error: Tensor, delta: float) -> Tensor:
    """`sqrt(d^2 + delta^2) - delta`, element by element: a parabola up to delta, then straight."""
    return torch.sqrt(error**2 + delta**2) - delta


class ConsistencyPolicy(Student, GenerativePolicy):
    """A network F that is asked at two levels, where a chunk is and where it should go."""

    config: ConsistencyConfig

    def __init__(self, config: ConsistencyConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.sampler = config.sampler
        self.register_buffer("levels", noise_levels(config.bins).clone(), persistent=False)
        self.delta = 0.00054 * math.sqrt(spec.horizon * spec.action_dim)

    def make_trunk(self, config: NetworkConfig) -> nn.Module:
        """The network; the level that is jumped to joins the features of every observation step."""
        return build_trunk(
            config.trunk,
            action_dim=self.spec.action_dim,
            horizon=self.spec.horizon,
            observation_steps=self.spec.observation_steps,
            observation_dim=self.encoder.width + _TARGET_WIDTH,
        )

    def jump(self, x: Tensor, t: Tensor, s: Tensor, condition: Features) -> Tensor:
        """Chunks at level s, () or (B,), on the way through x (B, H, A) at level t."""
        return jump(self._network(condition), x, t, s, self.config.data_std)

    def action(self, x: Tensor, t: Tensor, condition: Features) -> Tensor:
        """The action at the end of the way through x (B, H, A) at level t.

        A jump to the smallest level still holds that level's share of the noise in x; the line from x through it leads
        on to the action.
        """
        return estimate(self._network(condition), x, t, t.new_tensor(SMALLEST), self.config.data_std)

    def _network(self, condition: Features, weights: Mapping[str, Tensor] | None = None) -> Any:
        """F under one condition, with the present weights or with given ones."""

        def ask(x: Tensor, step: Tensor, target: Tensor) -> Tensor:
            there = periodic(target.reshape(-1), _TARGET_WIDTH)[:, None].expand(
                *condition.values.shape[:2], -1
            )
            arguments = (x, step, torch.cat([condition.values, there], dim=-1))
            out = (
                self.trunk(*arguments)
                if weights is None
                else functional_call(self.trunk, dict(weights), arguments)
            )
            return out.float()

        return ask

    def predict_noise(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat at x_s, from the action at the end of the way."""
        return noise_from_action(x, s, self._action(x, s, condition))

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat - a_hat at x_s."""
        action = self._action(x, s, condition)
        return noise_from_action(x, s, action) - action

    def _action(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        point, t = from_path(x, s)
        return self.action(point, t, condition)

    def draw_normalized(
        self,
        condition: Features,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        **options: Unpack[DrawOptions],
    ) -> Tensor:
        """Normalised chunks; by jumps, unless another sampler is asked for."""
        if not isinstance(sampler, ConsistencyJump):
            return super().draw_normalized(condition, shape, sampler, **options)
        generator = options.get("generator") or torch.Generator().manual_seed(0)
        prefix, noise, trace = (options.get(name) for name in ("prefix", "noise", "trace"))
        levels = sampler.levels(self.config.bins)
        x = torch.zeros(shape, device=self.device)
        with torch.no_grad():
            for level in levels:
                if noise is None:
                    noise = torch.randn(shape, generator=generator, device=generator.device)
                x = hold(x, prefix) + level * sampler.temperature * noise.to(x)
                x = self.action(x, x.new_tensor(level), condition)
                x = x if sampler.clip is None else x.clamp(-sampler.clip, sampler.clip)
                noise = None  # the next jump starts from fresh noise
        if trace is not None:
            trace.evaluations = torch.full((shape[0],), len(levels))
        return hold(x, prefix)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Loss of arriving at the same action from both ends of a step of the teacher, and of denoising."""
        action, condition, told = self.lesson(batch, generator)
        error = self._inconsistency(action, condition, told, generator)
        if self.config.denoising:
            error = error + self.config.denoising * self._denoising_error(action, condition, generator)
        return self.reduce(error, batch.mask.to(action.device))

    def _inconsistency(
        self, action: Tensor, condition: Features, told: Any, generator: torch.Generator
    ) -> Tensor:
        """How far apart the student's actions from both ends of a step of the teacher are, element by element."""
        t, u, s = (self.get_buffer("levels")[i] for i in draw_bins(len(action), self.config.bins, generator))
        x = action + spread(t, action) * draw(action.shape, generator, action)
        data_std, end = self.config.data_std, t.new_tensor(SMALLEST)
        ahead = self.jump(x, t, s, condition)
        held = self._network(condition, {name: p.detach() for name, p in self.trunk.named_parameters()})
        with evaluation_mode(self.trunk):
            reached = jump(held, ahead, s, end, data_std)
            with torch.no_grad():
                after = heun_step(self.teacher, x, t, u, told)
                target = jump(held, jump(held, after, u, s, data_std), s, end, data_std)
        return pseudo_huber(reached - target, self.delta)

    def _denoising_error(self, action: Tensor, condition: Features, generator: torch.Generator) -> Tensor:
        """Weighted squared error of the mean action behind a noised one, which is what a jump of no length knows.

        The released code asks the jump to the smallest level to hit the action itself. Where several actions are
        possible that is regression, and pulls every jump to their middle.
        """
        t = draw_levels(len(action), generator).to(action)
        x = action + spread(t, action) * draw(action.shape, generator, action)
        seen = estimate(self._network(condition), x, t, t, self.config.data_std)
        return spread(denoising_weight(t, self.config.data_std), x) * (seen - action).square()


def draw_bins(count: int, bins: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Bins (count,) of a point, of the next level, and of the level to jump to, which is no noisier than that.

    The point's is uniform; the target's is uniform among those after it. Every bin is a real one, and every step has
    a length: without one both sides agree whatever the weights.
    """
    device = generator.device
    t = torch.randint(bins - 1, (count,), generator=generator, device=device)
    share = torch.rand(count, generator=generator, device=device)
    s = t + 1 + (share * (bins - 1 - t)).long()
    return t, t + 1, s.clamp_max(bins - 1)  # a share may round up to 1
