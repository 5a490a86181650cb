"""Energy policies: a network that says how likely a chunk is, and actions found by going down its energy.

Three ways to learn the landscape. `regress` is EBT-Policy's (arXiv 2510.27545): run the descent from noise and pull its
end towards the demonstration. A start from noise says nothing about which demonstration it will be compared with, so
the best end is their mean: one mode, in very few steps. `denoise` makes a single step, from a point on the path between
action and noise; `eqm` (Equilibrium Matching, arXiv 2510.02300) sets the gradient itself, `(eps - a) c`, with c
vanishing at the action. Both keep every mode. None of them tells the network where on the path it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError
from ..data.normalizer import Normalizer
from ..data.schema import nearest
from ..data.spec import Spec
from ..data.windows import Batch
from .crop import View
from .descent import Descent, Found, descend
from .descent_step import DescentStep, Energy, advance, slope
from .energy_mlp import EnergyMLPConfig
from .energy_trunk import EnergyTrunk, EnergyTrunkConfig, build_energy_trunk
from .flow import draw_times
from .network import Features, NetworkConfig, NetworkPolicy, draw
from .path import mix, noise_from_action, noise_from_velocity, spread
from .policy import GenerativePolicy
from .sampling import DrawOptions, OwnSampler, SamplerConfig
from .trunk import TrunkConfig
from .unroll import Unroll, unrolled_error

Objective = Literal["denoise", "eqm", "regress"]
_OBJECTIVES = ("denoise", "eqm", "regress")

_NEAR = 0.2  # eqm: the part of the path, next to the action, over which c falls from 1 to 0
_SMALLEST_S = 1e-3


@dataclass(frozen=True, kw_only=True)
class EnergyConfig(NetworkConfig):
    """An energy policy.

    Attributes:
        trunk: the network.
        objective: how the landscape is learned. Within ten evaluations `eqm` leaves the fewest chunks between two
            modes; `denoise` needs fewer where there is one mode.
        step: one step of the descent, as trained and as sampled; `eqm` is sampled with a size of 2 / steps instead.
        unroll: the descent that `regress` is trained through.
        learn_size: let training change the step size, as in the "System 1" recipe of arXiv 2507.02092.
        sampler: how chunks are sampled.
    """

    trunk: EnergyTrunkConfig = field(default_factory=EnergyMLPConfig)
    objective: Objective = "eqm"
    step: DescentStep = field(default_factory=lambda: DescentStep(momentum=0.0))
    unroll: Unroll = field(default_factory=Unroll)
    learn_size: bool = False
    sampler: Descent | SamplerConfig = field(default_factory=Descent)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in _OBJECTIVES:
            raise ConfigError(f"unknown objective {self.objective!r}; {nearest(self.objective, _OBJECTIVES)}")
        if self.objective == "eqm" and (self.learn_size or self.step.temperature is not None):
            raise ConfigError(
                "eqm trains the gradient, not a step: learn_size must be false and step.temperature none, "
                f"got {self.learn_size} and {self.step.temperature}"
            )
        if self.objective != "regress" and self.step.normalize:
            raise ConfigError(
                f"step.normalize must be false for {self.objective!r}, where the length of a chunk tells how noisy it is"
            )

    def predicting(self) -> TrunkConfig:
        """The network of the same size that predicts chunks."""
        return self.trunk.predicting()


class EnergyPolicy(NetworkPolicy, GenerativePolicy):
    """A learned energy over action chunks.

    Noise and velocity, which compositions ask for, follow from the gradient: the step from x_s (for `regress` the
    whole descent) ends at the action estimated there; the gradient of `eqm` is the velocity times c. Energies of
    different observations cannot be compared: adding any function of the observation changes no gradient.

    Attributes:
        log_size: logarithm of alpha, so that updates are relative to its size; None unless alpha is learned.
    """

    config: EnergyConfig
    trunk: EnergyTrunk  # pyright: ignore[reportIncompatibleVariableOverride]
    log_size: nn.Parameter | None

    def __init__(self, config: EnergyConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        self.sampler = config.sampler
        log_size = nn.Parameter(torch.tensor(math.log(config.step.size))) if config.learn_size else None
        self.register_parameter("log_size", log_size)

    def make_trunk(self, config: NetworkConfig) -> EnergyTrunk:
        """The energy network."""
        return build_energy_trunk(self.config.trunk, self.spec, self.encoder.width)

    def _features(
        self,
        seen: Mapping[str, Tensor],
        observation: Mapping[str, Tensor],
        views: Mapping[str, View] | None = None,
    ) -> Features:
        """What the network has read of the observations, so that a descent reads them once."""
        features = super()._features(seen, observation, views)
        # Under autocast too: actions are brought to the type of these values.
        return replace(features, values=self.trunk.observe(features.values).float())

    def energy(self, x: Tensor, condition: Features) -> Tensor:
        """Energies (B',) of normalised chunks (B', H, A); lower is likelier under the same observation."""
        return self.trunk(x, condition.values)

    def predict_noise(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat at x_s."""
        if self.config.objective == "eqm":
            return noise_from_velocity(x, s, self.predict_velocity(x, s, condition))
        return noise_from_action(x, s, self._action(x, condition))

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Features) -> Tensor:
        """eps_hat - a_hat at x_s."""
        if self.config.objective == "eqm":
            return slope(self._under(condition), x)[1] / spread(approach(s), x)
        action = self._action(x, condition)
        return noise_from_action(x, s, action) - action

    def _action(self, x: Tensor, condition: Features) -> Tensor:
        """a_hat, where one step from x (B', H, A) leads; for `regress`, where all steps of the sampler lead."""
        if self.config.objective == "regress":
            whole = replace(self._own_descent(), tolerance=0.0, noise=0.0)
            return self._descend(x, condition, whole, quick=False).x
        still = torch.zeros_like(x)
        return advance(self._under(condition), x, still, self.config.step, size=self.size).x

    @property
    def evaluations_per_answer(self) -> int:
        """One, or of `regress` those of a whole descent."""
        return self._own_descent().steps if self.config.objective == "regress" else 1

    @property
    def size(self) -> Tensor | float:
        """The step size alpha, also while it is learned."""
        return self.config.step.size if self.log_size is None else self.log_size.exp()

    @torch.no_grad()
    def draw_normalized(
        self,
        condition: Features,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        **options: Unpack[DrawOptions],
    ) -> Tensor:
        """Normalised chunks (B', H, A), see `GenerativePolicy.draw_normalized`.

        A prefix is held at every step of a descent. The energy that a trace asks for costs one evaluation more, which
        is not counted: it is made for the trace alone. With `best_of` it is part of sampling, and counted.
        """
        trace = options.get("trace")
        if not isinstance(sampler, Descent):
            x = super().draw_normalized(condition, shape, sampler, **options)
            if trace is not None and trace.evaluations is not None:
                trace.evaluations *= self.evaluations_per_answer
            found = Found(x, torch.zeros(0))
        else:
            generator = options.get("generator") or torch.Generator().manual_seed(0)
            starts = self._starts(shape, sampler, generator, options.get("noise"))
            found = self._best(starts, condition, sampler, options.get("prefix"), generator)
            if trace is not None:
                trace.evaluations = found.evaluations
        if trace is not None:
            energy = self.energy(found.x, condition) if found.energy is None else found.energy
            trace.energy = energy.cpu()
        return found.x

    def _starts(
        self, shape: tuple[int, int, int], sampler: Descent, generator: torch.Generator, noise: Tensor | None
    ) -> Tensor:
        """(B', G, H, A); the first as any sampler draws it, the others after it, so that more only adds."""
        drawn = [] if noise is None else [noise.to(self.device)]
        while len(drawn) < sampler.best_of:
            drawn.append(torch.randn(shape, generator=generator, device=generator.device).to(self.device))
        return sampler.spread * torch.stack(drawn, dim=1)

    def _best(
        self,
        starts: Tensor,
        condition: Features,
        sampler: Descent,
        prefix: Tensor | None,
        generator: torch.Generator,
    ) -> Found:
        """The end of lowest energy among those of G starts per row."""
        count, best_of = starts.shape[:2]
        if best_of > 1:
            condition = condition.repeat(best_of)
            prefix = prefix if prefix is None else prefix.repeat_interleave(best_of, dim=0)
        found = self._descend(starts.flatten(0, 1), condition, sampler, prefix=prefix, generator=generator)
        if best_of == 1:
            return found
        energy = self.energy(found.x, condition).view(count, best_of)
        lowest, pick = energy.nan_to_num(nan=math.inf).min(dim=1)
        x = found.x.unflatten(0, (count, best_of))[torch.arange(count, device=pick.device), pick]
        return Found(x, found.evaluations.view(count, best_of).sum(dim=1) + best_of, lowest)

    def _descend(
        self,
        start: Tensor,
        condition: Features,
        sampler: Descent,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        quick: bool = True,
    ) -> Found:
        """The descent from `start` (B', H, A) with the policy's own step, as far as the sampler leaves it."""
        step, size = self.config.step, sampler.size
        if size is None:
            size = 2 / sampler.steps if self.config.objective == "eqm" else self.size
        if sampler.momentum is not None:
            step = replace(step, momentum=sampler.momentum)
        # Copied, since a gradient cannot be taken through what was encoded in inference mode.
        memory = condition.values.clone()
        return descend(
            self.trunk, start, memory, step, sampler,
            size=size, prefix=prefix, generator=generator, quick=quick,
        )  # fmt: skip

    def _own_descent(self) -> Descent:
        return self.sampler if isinstance(self.sampler, Descent) else Descent()

    def _under(self, condition: Features) -> Energy:
        return lambda x: self.energy(x, condition)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the step, of the gradient or of the descent; works without gradients too."""
        action, condition = self.training_pair(batch, generator)
        config, energy = self.config, self._under(condition)
        s = draw_times("uniform", len(action), generator).to(action)
        noise = draw(action.shape, generator, action)
        x = mix(action, noise, s)
        match config.objective:
            case "denoise":
                error = (self._action(x, condition) - action).square()
            case "eqm":
                error = (slope(energy, x)[1] - spread(approach(s), x) * (noise - action)).square()
            case "regress":
                error = unrolled_error(
                    energy, noise, action, config.step, config.unroll, generator, size=self.size
                )
        return self.reduce(error, batch.mask.to(action.device))


def approach(s: Tensor) -> Tensor:
    """The factor c of `eqm`: 1 from noise until shortly before the action, then falling to 0 on it."""
    return (s.clamp_min(_SMALLEST_S) / _NEAR).clamp_max(1.0)
