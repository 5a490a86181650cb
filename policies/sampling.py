"""From noise to actions: one adapter around diffusers' schedulers, for every generative policy.

Schedulers work on `alpha a + sigma eps`; policies answer on the straight-line path (`path.py`). At every step the
adapter converts the point, asks the policy for what the scheduler steps with (noise, action or velocity), and lets the
scheduler make one step. The initial noise stands unchanged at the first step a scheduler visits.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict, assert_never

import torch
from torch import Tensor

from ..data.errors import ConfigError
from ..data.schema import nearest
from .guidance import Pull
from .langevin import corrected
from .path import (
    BETA_SCHEDULES,
    BetaSchedule,
    action_from_noise,
    action_from_velocity,
    betas,
    grid,
    hold,
    levels,
    mix,
    noise_from_velocity,
)

if TYPE_CHECKING:
    from .policy import GenerativePolicy

# diffusers takes more than a second to import and its schedulers are slow to build, hence the imports inside the
# functions below and the caches; a cached scheduler is never stepped, only copied.


@dataclass(frozen=True, kw_only=True)
class ScheduleSampler:
    """A sampler on the noise schedule of a DDPM.

    Attributes:
        steps: network calls.
        train_steps: length of the noise schedule.
        beta_schedule: shape of the noise schedule.
        clip: predicted actions are clipped to [-clip, clip] in normalised numbers; None for no clipping.
        corrections: Langevin steps at every noise level before the step to the next, one network call each. They bring
            a composition's samples nearer to the product of its members (arXiv 2302.11552).
        correction_size: h of a correction `x + h score + sqrt(2 h) z`, as a share of the level's sigma^2.
    """

    steps: int = 10
    train_steps: int = 100
    beta_schedule: BetaSchedule = "squaredcos_cap_v2"
    clip: float | None = 1.0
    corrections: int = 0
    correction_size: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{type(self).__name__} needs steps of at least 1, got {self.steps}")
        if self.beta_schedule not in BETA_SCHEDULES:
            raise ConfigError(
                f"unknown beta_schedule {self.beta_schedule!r}; {nearest(self.beta_schedule, BETA_SCHEDULES)}"
            )
        most = self._most_steps()
        if self.train_steps < 2 or self.steps > most:
            raise ConfigError(
                f"{type(self).__name__} cannot make {self.steps} steps on a schedule of {self.train_steps}; "
                f"use 1..{most} steps, on a schedule of at least 2"
            )
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be positive or none, got {self.clip}")
        if self.corrections < 0:
            raise ConfigError(f"corrections must be at least 0, got {self.corrections}")
        if not 0 < self.correction_size < 1:
            raise ConfigError(
                f"correction_size must lie in (0, 1), a share of the noise's variance, got {self.correction_size}"
            )

    def _most_steps(self) -> int:
        return self.train_steps


@dataclass(frozen=True, kw_only=True)
class DDPM(ScheduleSampler):
    """Ancestral sampling, arXiv 2006.11239, with the posterior's own variance; draws noise at every step."""

    steps: int = 100


@dataclass(frozen=True, kw_only=True)
class DDIM(ScheduleSampler):
    """Deterministic steps, arXiv 2010.02502, spaced evenly from 0.

    With more than half of the training steps and clipping, the noise is recomputed from the clipped action: clipped
    actions and unclipped noise disagree a little at each step, and over many steps that adds up to a wrong sample.
    """


@dataclass(frozen=True, kw_only=True)
class DPMSolver(ScheduleSampler):
    """DPM-Solver++ of second order, arXiv 2211.01095."""

    def _most_steps(self) -> int:
        # It never visits step 0, and divides by the distance of neighbouring steps.
        return self.train_steps - 1


@dataclass(frozen=True, kw_only=True)
class VelocitySampler:
    """A sampler along the velocity, from s = 1 to 0 in steps of equal length.

    Attributes:
        steps: number of steps.
        temperature: standard deviation of the initial noise; below 1, samples keep closer to the likely ones.
    """

    steps: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{type(self).__name__} needs steps of at least 1, got {self.steps}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be at least 0 and finite, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class FlowEuler(VelocitySampler):
    """Euler's method; one network call per step."""


@dataclass(frozen=True, kw_only=True)
class FlowHeun(VelocitySampler):
    """Heun's second-order method; two network calls per step.

    Attributes:
        correct_last: also correct the last step, with a velocity at s = 0, where few networks are trained.
    """

    steps: int = 5
    correct_last: bool = False


SamplerConfig = DDPM | DDIM | DPMSolver | FlowEuler | FlowHeun


@dataclass(frozen=True)
class OwnSampler:
    """Base of samplers that one family of policies knows how to make, such as the descent of an energy."""


@dataclass
class Trace:
    """What a call of `sample` did besides drawing chunks; pass one in to have it filled.

    Attributes:
        evaluations: (B, K) network evaluations spent on each chunk, the encoding of the observation left out.
        energy: (B, K) energy of each chunk, where the policy has one.
    """

    evaluations: Tensor | None = None
    energy: Tensor | None = None


class DrawOptions(TypedDict, total=False):
    """What a draw of normalised chunks may be given, see `generate`."""

    generator: torch.Generator | None
    prefix: Tensor | None
    noise: Tensor | None
    pull: Pull | None
    trace: Trace | None


def generate(
    policy: "GenerativePolicy",
    condition: Any,
    shape: tuple[int, int, int],
    sampler: SamplerConfig,
    *,
    generator: torch.Generator | None = None,
    prefix: Tensor | None = None,
    noise: Tensor | None = None,
    pull: Pull | None = None,
    trace: Trace | None = None,
) -> Tensor:
    """Normalised action chunks (B', H, A), without gradients.

    Args:
        policy: answers for the noise or the velocity.
        condition: as `policy.encode` returned it, with B' rows.
        shape: (B', H, A).
        sampler: which steps to make.
        generator: source of the initial noise and of a stochastic sampler's noise; None seeds a fresh one with 0.
        prefix: (B', P, A) normalised actions that the chunks start with. At every step the start of the chunk is
            overwritten with the prefix, noised as far as the rest.
        noise: (B', H, A) initial noise in place of a draw; a sampler's temperature scales it likewise.
        pull: draws the chunks towards another. Where a sampler clips predicted actions, they are clipped before they
            are guided, and the noise is recomputed from them.
        trace: `evaluations` (B',) is written to it.
    """
    device = policy.device
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=generator.device)
        noise = noise.to(device)
        if isinstance(sampler, VelocitySampler) and sampler.temperature != 1.0:
            noise = sampler.temperature * noise
        if pull is not None and isinstance(sampler, ScheduleSampler):
            pull, sampler = replace(pull, clip=sampler.clip), replace(sampler, clip=None)
        ask = _Asker(policy, condition, noise, None if prefix is None else prefix.to(device), pull)
        match sampler:
            case FlowHeun():
                x = _heun(ask, noise, sampler)
            case _:
                x = _scheduled(ask, noise, sampler, generator)
        x = hold(x, prefix)
        if trace is not None:
            trace.evaluations = torch.full((shape[0],), ask.calls)
        return x


@dataclass
class _Asker:
    """One policy under one condition, its chunks held to a prefix or drawn to a guide."""

    policy: "GenerativePolicy"
    condition: Any
    noise: Tensor
    prefix: Tensor | None
    pull: Pull | None
    calls: int = 0

    def hold(self, x: Tensor, s: Tensor) -> Tensor:
        """x_s with its start replaced by the prefix, noised to s."""
        if self.prefix is None:
            return x
        return hold(x, mix(self.prefix, self.noise[:, : self.prefix.shape[1]], s))

    def velocity(self, x: Tensor, s: Tensor) -> Tensor:
        """The velocity at x_s."""
        self.calls += 1
        if self.pull is None:
            return self.policy.predict_velocity(x, s, self.condition)
        return self.pull.velocity(lambda y: self.policy.predict_velocity(y, s, self.condition), x, s)

    def noise_at(self, x: Tensor, s: Tensor) -> Tensor:
        """The noise in x_s; a guided one follows from the velocity, in which guidance is defined."""
        if self.pull is not None:
            return noise_from_velocity(x, s, self.velocity(x, s))
        self.calls += 1
        return self.policy.predict_noise(x, s, self.condition)

    def answer(self, question: "_Question", x: Tensor, s: Tensor) -> Tensor:
        """What a scheduler steps with; actions are clipped by it, after a composition has mixed its members."""
        match question:
            case "noise":
                return self.noise_at(x, s)
            case "velocity":
                return self.velocity(x, s)
            case "action":
                if self.pull is not None:
                    return action_from_velocity(x, s, self.velocity(x, s))
                return action_from_noise(x, s, self.noise_at(x, s))
            case _:
                assert_never(question)


_Question = Literal["noise", "velocity", "action"]


@dataclass(frozen=True)
class _Plan:
    """A scheduler and the points it visits.

    Attributes:
        scheduler: never stepped itself.
        question: what its steps are made with.
        timesteps: as the scheduler names its steps.
        s: (n,) path positions of the steps.
        total: alpha + sigma at each step, 1 on the path itself.
        clip: bound on predicted actions that the scheduler does not apply itself.
        options: keyword arguments of every step.
    """

    scheduler: Any
    question: _Question
    timesteps: tuple[Any, ...]
    s: Tensor
    total: tuple[float, ...]
    clip: float | None
    options: dict[str, Any]


def _scheduled(
    ask: _Asker, x: Tensor, sampler: DDPM | DDIM | DPMSolver | FlowEuler, generator: torch.Generator
) -> Tensor:
    plan = _plan(sampler)
    scheduler = copy.copy(plan.scheduler)
    if isinstance(sampler, DPMSolver):
        scheduler.model_outputs = list(scheduler.model_outputs)  # written in place by its steps
    options = plan.options | ({"generator": generator} if isinstance(sampler, DDPM) else {})
    positions = plan.s.to(x.device)
    for timestep, s, total in zip(plan.timesteps, positions, plan.total, strict=True):
        if isinstance(sampler, ScheduleSampler):
            x = corrected(ask, x, s, total, sampler.corrections, sampler.correction_size, generator)
        y = ask.hold(x / total if total != 1.0 else x, s)
        x = y * total if ask.prefix is not None else x
        answer = ask.answer(plan.question, y, s)
        if plan.clip is not None:
            answer = answer.clamp(-plan.clip, plan.clip)
        x = scheduler.step(answer, timestep, x, return_dict=False, **options)[0]
    return x


def _heun(ask: _Asker, x: Tensor, sampler: FlowHeun) -> Tensor:
    positions = torch.linspace(1, 0, sampler.steps + 1, device=x.device)
    for i in range(sampler.steps):
        s, after = positions[i], positions[i + 1]
        x = ask.hold(x, s)
        slope = ask.velocity(x, s)
        reached = x + (after - s) * slope
        if i < sampler.steps - 1 or sampler.correct_last:
            slope = (slope + ask.velocity(ask.hold(reached, after), after)) / 2
            reached = x + (after - s) * slope
        x = reached
    return x


@lru_cache(maxsize=64)
def _plan(sampler: DDPM | DDIM | DPMSolver | FlowEuler) -> _Plan:
    if isinstance(sampler, FlowEuler):
        return _flow_plan(sampler)
    scheduler = _variance_preserving_scheduler(sampler)
    timesteps = tuple(int(k) for k in scheduler.timesteps)
    alpha, sigma = levels(sampler.beta_schedule, sampler.train_steps)
    recompute = isinstance(sampler, DDIM) and 2 * sampler.steps > sampler.train_steps
    return _Plan(
        scheduler=scheduler,
        question="action" if isinstance(sampler, DPMSolver) else "noise",
        timesteps=timesteps,
        s=grid(sampler.beta_schedule, sampler.train_steps)[list(timesteps)],
        total=tuple(float(alpha[k] + sigma[k]) for k in timesteps),
        clip=sampler.clip if isinstance(sampler, DPMSolver) else None,
        options={"use_clipped_model_output": True} if recompute else {},
    )


def _flow_plan(sampler: FlowEuler) -> _Plan:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    n = sampler.steps
    positions = [1 - i / n for i in range(n)]
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    # Given only a number of steps, it would visit 1, ..., 0.001, 0 instead of steps of equal length.
    scheduler.set_timesteps(sigmas=positions)
    scheduler.set_begin_index(0)
    timesteps = tuple(1000 * s for s in positions)
    return _Plan(scheduler, "velocity", timesteps, torch.tensor(positions), (1.0,) * n, None, {})


def _variance_preserving_scheduler(sampler: DDPM | DDIM | DPMSolver) -> Any:
    shared: dict[str, Any] = {
        "num_train_timesteps": sampler.train_steps,
        "trained_betas": betas(sampler.beta_schedule, sampler.train_steps),
    }
    clipping = {"clip_sample": sampler.clip is not None, "clip_sample_range": sampler.clip or 1.0}
    match sampler:
        case DDPM():
            from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

            scheduler = DDPMScheduler(**shared, **clipping, variance_type="fixed_small")
            scheduler.set_timesteps(sampler.steps)
        case DDIM():
            from diffusers.schedulers.scheduling_ddim import DDIMScheduler

            scheduler = DDIMScheduler(**shared, **clipping)
            scheduler.set_timesteps(sampler.steps)
        case DPMSolver():
            from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

            scheduler = DPMSolverMultistepScheduler(**shared, prediction_type="sample")
            scheduler.set_timesteps(sampler.steps)
            scheduler.set_begin_index(0)
        case _:
            assert_never(sampler)
    return scheduler
