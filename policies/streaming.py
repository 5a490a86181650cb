"""Streaming Flow Policy (arXiv 2505.21851): the trajectory of actions is itself the way of a flow.

The flow's time runs along the chunk: from the present position at t = 0, every Euler step of 1/H leads to the next action,
which can be executed while the rest is still being computed. With xi(t) the demonstrated trajectory,

    u = xi'(t) - k (a - xi(t)),    a ~ N(xi(t), (s0 exp(-k t))^2),

so that the network learns a velocity around the demonstration and not only on it. With a latent z, for demonstrations
that disagree (k = 0, z_0 ~ N(0, 1), sr^2 = s1^2 - s0^2):

    a(t) = xi(t) + s0 eps + sr t z_0,    u_a = xi' + sr z_0,
    z(t) = (1 - (1 - s1) t) z_0 + t xi(t),    u_z = xi + t xi' - (1 - s1) z_0.

Positions are offsets from where the robot is, one scale per dimension. This time is not that of `path.py`: there is no
noise to be predicted, and no composition with other families.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.errors import ConfigError, SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from ..data.windows import Batch
from .network import Features, NetworkConfig, NetworkPolicy, draw
from .trunk import build_trunk

_STEPS = 1000.0  # trunks count steps as diffusion does; the way along a chunk is given to them in thousandths


@dataclass(frozen=True, kw_only=True)
class StreamingConfig(NetworkConfig):
    """A streaming flow policy; the defaults are those released for PushT.

    Attributes:
        relative: observation key of the position that actions command, where every chunk begins.
        tube: s0, standard deviation around the demonstration that is trained on, in scaled offsets: 1 is the largest
            scale that the normaliser has for a step of the chunk, one standard deviation of the offset under
            `mean_std`, half its range under `min_max`.
        pull: k, how strongly the velocity leads back to the demonstration; per length of a chunk.
        latent: s1, the tube's width at the end of the chunk with a latent variable; None for no latent variable.
        substeps: network calls per action; more of them follow a field that bends between two actions, as it does where
            demonstrations part.
        temperature: spread of the position that sampling starts from, as a share of `tube`; 0 starts where the robot
            is. A latent variable is always drawn.
    """

    relative: str | None = "state"
    tube: float = 0.1
    pull: float = 0.0
    latent: float | None = None
    substeps: int = 1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tube", "pull", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if self.substeps < 1:
            raise ConfigError(f"substeps must be at least 1, got {self.substeps}")
        if self.relative is None:
            raise ConfigError("a streaming policy starts at the present position: name its key in `relative`")
        if self.chunk.start != 0:
            raise ConfigError(f"a streaming policy starts now: set chunk.start to 0, got {self.chunk.start}")
        if self.latent is not None and (self.pull or not self.tube <= self.latent <= 1):
            raise ConfigError(
                f"with a latent variable pull must be 0 and latent lie in [tube, 1], got pull {self.pull}, "
                f"latent {self.latent}, tube {self.tube}"
            )


class StreamingPolicy(NetworkPolicy):
    """A velocity field over positions and the time along a chunk; sampled by following it."""

    config: StreamingConfig

    def __init__(self, config: StreamingConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(config, spec, normalizer)
        _, scale = normalizer.affine("action")
        if scale.shape != (spec.horizon, spec.action_dim):
            raise SpecError(
                f"the scale of the action has shape {tuple(scale.shape)}; needed is "
                f"{(spec.horizon, spec.action_dim)}, a row per step of a chunk: fit the normalizer with "
                f"relative={config.relative!r}"
            )
        self.register_buffer("reach", scale.amax(dim=0), persistent=False)

    def make_trunk(self, config: NetworkConfig) -> nn.Module:
        """A network that is shown one position, and the latent variable beside it."""
        return build_trunk(
            config.trunk,
            action_dim=self.spec.action_dim * (1 if self.config.latent is None else 2),
            horizon=1,
            observation_steps=self.spec.observation_steps,
            observation_dim=self.encoder.width,
        )

    def normalize_action(self, action: Tensor, condition: Features) -> Tensor:
        """Physical actions (B, n, A) to offsets from the present position, at one scale."""
        assert condition.origin is not None
        return (action - condition.origin[:, None]) / self.get_buffer("reach")

    def unnormalize_action(self, x: Tensor, condition: Features) -> Tensor:
        """Inverse of `normalize_action`."""
        assert condition.origin is not None
        return x * self.get_buffer("reach") + condition.origin[:, None]

    def stream(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yield the actions of a chunk one by one, (B, K, A), each after one call of the network (or `substeps`).

        Args:
            observation: key -> (B, O, *shape), physical units.
            samples: K, chunks per observation.
            generator: source of all randomness, see `Policy.sample`; drawn from before the first action.
            prefix: (B, P, A) actions already committed to; the stream goes on from the last of them, with the P + 1st.

        Raises:
            SpecError: at once, if the observation or the prefix does not fit the spec.
        """
        batch = self.check_observation(observation)
        self.check_prefix(prefix, batch)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        done, last = 0 if prefix is None else prefix.shape[1], None
        with torch.no_grad():
            condition = self.encode(observation).repeat(samples)
            if prefix is not None and done:
                last = prefix[:, -1:].to(self.device, torch.float32).repeat_interleave(samples, dim=0)
                last = self.normalize_action(last, condition)
            x = self._begin(condition, generator, done / self.spec.horizon, last)
        return self._follow(x, done, condition, (batch, samples))

    @torch.no_grad()
    def _follow(self, x: Tensor, done: int, condition: Features, rows: tuple[int, int]) -> Iterator[Tensor]:
        """The actions (B, K, A) after the first `done` of a chunk, from x on."""
        width, substeps = self.spec.action_dim, self.config.substeps
        steps = self.spec.horizon * substeps
        for step in range(done * substeps, steps):
            x = x + self._velocity(x, x.new_tensor(step / steps), condition) / steps
            if (step + 1) % substeps == 0:
                yield self.unnormalize_action(x[..., :width], condition).view(*rows, width)

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """The whole stream as one chunk, see `Policy.sample`."""
        streamed = self.stream(observation, samples=samples, generator=generator, prefix=prefix)
        actions = list(streamed)
        if prefix is None:
            return torch.stack(actions, dim=2)
        committed = prefix.to(self.device, torch.float32)[:, None].repeat(1, samples, 1, 1)
        return torch.cat([committed, *(action[:, :, None] for action in actions)], dim=2)

    def _begin(
        self, condition: Features, generator: torch.Generator, t: float, last: Tensor | None
    ) -> Tensor:
        """Where the flow starts at time t, (B, 1, A) or (B, 1, 2 A): at the last committed action if there is one."""
        config, rows, width = self.config, len(condition.values), self.spec.action_dim
        noise = draw((rows, 1, 2 * width), generator, condition.values)
        position = config.tube * config.temperature * noise[..., :width] if last is None else last
        if config.latent is None:
            return position
        latent = (1 - (1 - config.latent) * t) * noise[..., width:] + t * position
        return torch.cat([position, latent], dim=-1)

    def _velocity(self, x: Tensor, t: Tensor, condition: Features) -> Tensor:
        return self.trunk(x, _STEPS * t, condition.values).float()

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity at one random time per chunk."""
        action, condition = self.training_pair(batch, generator)
        config, width = self.config, self.spec.action_dim
        t = torch.rand(len(action), generator=generator, device=generator.device).to(action)
        noise = draw((len(action), 1, 2 * width), generator, action)
        knots = torch.cat([torch.zeros_like(action[:, :1]), action], dim=1)
        xi, slope = trajectory(knots, t)
        around = xi + config.tube * torch.exp(-config.pull * t).view(-1, 1, 1) * noise[..., :width]
        if config.latent is None:
            x, target = around, velocity(xi, slope, around, config.pull)
        else:
            x, target = with_latent(xi, slope, around, noise[..., width:], t, config.tube, config.latent)
        error = F.mse_loss(self._velocity(x, t, condition), target, reduction="none")
        segment = (t * self.spec.horizon).long().clamp_max(self.spec.horizon - 1)
        mask = batch.mask.to(action.device).repeat_interleave(self.draws, dim=0).gather(1, segment[:, None])
        return self.reduce(error, mask)


def trajectory(knots: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """xi(t) and xi'(t), each (B, 1, A), of straight lines between knots (B, n, A) at i / (n - 1); t is (B,)."""
    last = knots.shape[1] - 1
    place = t * last
    left = place.long().clamp_max(last - 1)
    rows = torch.arange(len(knots), device=knots.device)
    start, end = knots[rows, left], knots[rows, left + 1]
    share = (place - left)[:, None]
    return (start + share * (end - start))[:, None], (last * (end - start))[:, None]


def velocity(xi: Tensor, slope: Tensor, position: Tensor, pull: float) -> Tensor:
    """The velocity u at a position: along the demonstration, and back to it."""
    return slope - pull * (position - xi)


def with_latent(
    xi: Tensor, slope: Tensor, around: Tensor, z: Tensor, t: Tensor, tube: float, end: float
) -> tuple[Tensor, Tensor]:
    """The point (a, z)(t) and its velocity, each (B, 1, 2 A), for a position around xi and an initial latent z."""
    t, growth = t.view(-1, 1, 1), math.sqrt(end**2 - tube**2)
    point = torch.cat([around + growth * t * z, (1 - (1 - end) * t) * z + t * xi], dim=-1)
    return point, torch.cat([slope + growth * z, xi + t * slope - (1 - end) * z], dim=-1)
