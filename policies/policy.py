"""What every policy is: observations to a distribution over chunks of actions.

Shapes: B batch, K samples, O observation steps, H chunk horizon, A action width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, Unpack

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError, SpecError, TrainingError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from ..data.windows import Batch
from ..training.checkpoint import Source
from .guidance import ChunkGuide, Pull
from .padding import padded
from .sampling import DrawOptions, OwnSampler, SamplerConfig, Trace, generate


class Policy(nn.Module, ABC):
    """Observations in, action chunks out; no hidden queue, no global randomness.

    Executing a chunk is the business of `execution.py`.

    Attributes:
        spec: what the policy reads and writes, with its window lengths.
        config: the configuration it was built from, or None for a policy that needs none.
        source: the checkpoint it was loaded from, or None.
    """

    def __init__(self, spec: Spec, config: Any = None) -> None:
        """Refuse specs that no robot could serve."""
        super().__init__()
        if "privileged" in spec.observation:
            raise SpecError(
                "a policy must not read `privileged`, which only a simulator knows; "
                f"choose among {sorted(set(spec.observation) - {'privileged'})}"
            )
        self.spec = spec
        self.config = config
        self.source: Source | None = None

    @abstractmethod
    def sample(
        self,
        observation: Mapping[str, Any],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Draw action chunks.

        Args:
            observation: key -> (B, O, *shape), physical units; text is a list of B strings, the present ones. Keys that
                the spec does not name are ignored.
            samples: K, chunks per observation.
            generator: source of all randomness. Without one, a fresh generator seeded with 0 is used, so the same
                observation gives the same chunk.
            prefix: (B, P, A) actions already committed to, physical units; every chunk starts with exactly these.

        Returns:
            (B, K, H, A) actions in physical units; the first is due `spec.start` control steps from now.

        Raises:
            SpecError: if the observation or the prefix does not fit the spec.
        """

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Training loss of one batch, a scalar; families that learn override it."""
        raise TrainingError(f"{type(self).__name__} learns nothing from data; evaluate it as it is")

    @property
    def device(self) -> torch.device:
        """Where the parameters (or else the buffers) live."""
        tensor = next(self.parameters(), None)
        tensor = next(self.buffers(), None) if tensor is None else tensor
        return torch.device("cpu") if tensor is None else tensor.device

    def check_observation(self, observation: Mapping[str, Any]) -> int:
        """Raise unless the observation fits the spec; return its batch size B."""
        return check_observation(self.spec, observation)

    def check_prefix(self, prefix: Tensor | None, batch: int) -> None:
        """Raise unless a prefix is (B, P, A) with P <= H."""
        if prefix is None:
            return
        horizon, width = self.spec.horizon, self.spec.action_dim
        if (
            prefix.ndim != 3
            or prefix.shape[0] != batch
            or prefix.shape[2] != width
            or prefix.shape[1] > horizon
        ):
            raise SpecError(
                f"prefix has shape {tuple(prefix.shape)}; allowed is ({batch}, 0..{horizon}, {width}): "
                "batch, committed actions, action width"
            )


def check_observation(spec: Spec, observation: Mapping[str, Any], reader: str = "policy") -> int:
    """Raise unless an observation fits the spec of who reads it; return its batch size B.

    Raises:
        SpecError: naming the first key that does not fit.
    """
    batch = None
    for key, field in spec.observation.items():
        if key not in observation:
            raise SpecError(f"observation {key!r} is missing; the {reader} needs {list(spec.observation)}")
        wanted = () if field.is_text else (spec.observation_steps, *field.shape)
        value = observation[key]
        shape = _shape_of_text(key, value) if field.is_text else tuple(value.shape)
        if len(shape) == 0 or shape[1:] != wanted:
            raise SpecError(
                f"observation {key!r} has shape {shape}; the {reader} needs (batch, {', '.join(map(str, wanted))})"
            )
        batch = shape[0] if batch is None else batch
        if shape[0] != batch:
            raise SpecError(f"observation {key!r} has batch size {shape[0]}, the keys before it {batch}")
    if batch is None:
        raise SpecError(f"the {reader}'s spec names no observation")
    return batch


def _shape_of_text(key: str, value: Any) -> tuple[int]:
    """(B,) of a list of B strings."""
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or not all(isinstance(v, str) for v in value)
    ):
        raise SpecError(f"observation {key!r} must be a list of strings, one per row, got {value!r}")
    return (len(value),)


def start_with(chunks: Tensor, prefix: Tensor | None) -> Tensor:
    """Chunks (B, K, H, A) whose first actions are replaced by the prefix (B, P, A)."""
    if prefix is None:
        return chunks
    chunks = chunks.clone()
    chunks[:, :, : prefix.shape[1]] = prefix[:, None].to(chunks)
    return chunks


class Condition(Protocol):
    """What `encode` returns: everything a network needs to know of B observations."""

    def repeat(self, samples: int) -> Self:
        """Each row `samples` times in a row: (B, ...) -> (B * K, ...)."""
        ...


class GenerativePolicy(Policy):
    """A policy that answers at any noise level, which is what makes composition possible.

    All members, however trained, speak one coordinate system: normalised actions on the straight-line path
    `x_s = (1 - s) a + s eps`, s from 1 (noise) to 0 (action). Two questions are asked, since each is singular where
    the other is not: `eps_hat = x + (1 - s) v` says nothing about the velocity at s = 1, and `v = (eps_hat - a)`
    needs an action that a network trained on noise does not know there.

    Attributes:
        normalizer: maps between physical and normalised numbers.
        sampler: how `sample` goes from noise to actions; may be replaced after training.
    """

    normalizer: Normalizer
    sampler: SamplerConfig | OwnSampler

    @abstractmethod
    def encode(self, observation: Mapping[str, Any]) -> Any:
        """Observations (B, O, ...) to a `Condition`; once per control step, for all samples and steps."""

    @abstractmethod
    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        """eps_hat (B', H, A) at x (B', H, A); s is a scalar or (B',), the condition has B' rows."""

    @abstractmethod
    def predict_velocity(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        """Velocity eps_hat - a_hat (B', H, A), with the arguments of `predict_noise`."""

    @property
    def path_width(self) -> int:
        """Numbers per action that noise is carried for: A, or more where a network's actions are padded."""
        return self.spec.action_dim

    @property
    def evaluations_per_answer(self) -> int:
        """Network evaluations that one call of `predict_noise` or `predict_velocity` makes."""
        return 1

    def normalize_action(self, action: Tensor, condition: Any) -> Tensor:
        """Physical actions (B', n, A), the first n of a chunk, to the space of x."""
        return self.normalizer.normalize("action", action)

    def unnormalize_action(self, x: Tensor, condition: Any) -> Tensor:
        """Inverse of `normalize_action`."""
        return self.normalizer.unnormalize("action", x)

    def sample(
        self,
        observation: Mapping[str, Any],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        noise: Tensor | None = None,
        sampler: SamplerConfig | OwnSampler | None = None,
        guide: ChunkGuide | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Draw action chunks, see `Policy.sample`.

        The initial noise is drawn in one call as (B, K, H, A), on the generator's device. K is folded into the batch:
        observations are encoded once, networks run on B * K rows.

        Args:
            observation: key -> (B, O, *shape), physical units.
            samples: K, chunks per observation.
            generator: source of all randomness, see `Policy.sample`.
            prefix: (B, P, A) actions already committed to, physical units.
            noise: (B, K, H, A) initial noise in place of a draw; K must equal `samples`.
            sampler: used in place of the policy's own.
            guide: the chunk under way, which the new ones are to continue; one without overlap changes nothing.
            trace: filled with what the sampling cost.

        Raises:
            ConfigError: for a guide with a sampler that knows no velocity.
        """
        batch = self.check_observation(observation)
        self.check_prefix(prefix, batch)
        sampler = sampler or self.sampler
        rows = (batch * samples, self.spec.horizon, self.spec.action_dim)
        if noise is not None and noise.shape != (batch, samples, *rows[1:]):
            raise SpecError(f"noise has shape {tuple(noise.shape)}; allowed is {(batch, samples, *rows[1:])}")
        with torch.no_grad():
            condition = self.encode(observation)
            condition = condition.repeat(samples) if samples != 1 else condition
            committed = None
            if prefix is not None:
                committed = prefix.to(self.device).repeat_interleave(samples, dim=0)
                committed = self.normalize_action(committed, condition)
            x = self.draw_normalized(
                condition,
                rows,
                sampler,
                generator=generator,
                prefix=committed,
                noise=None if noise is None else noise.reshape(rows).float(),
                pull=None if guide is None else self._pull(guide, condition, batch, samples, sampler),
                trace=trace,
            )
            chunks = self.unnormalize_action(x, condition).unflatten(0, (batch, samples))
        if trace is not None:
            for name in ("evaluations", "energy"):
                if (value := getattr(trace, name)) is not None:
                    setattr(trace, name, value.view(batch, samples))
        return start_with(chunks, prefix)

    def _pull(
        self,
        guide: ChunkGuide,
        condition: Any,
        batch: int,
        samples: int,
        sampler: SamplerConfig | OwnSampler,
    ) -> Pull | None:
        """The guide in the space of x; None where nothing is to be guided."""
        if isinstance(sampler, OwnSampler):
            raise ConfigError(
                f"{type(sampler).__name__} cannot be guided: it steps with no velocity; "
                "use DDIM, DDPM, DPMSolver, FlowEuler or FlowHeun, or execute without guidance"
            )
        guide.check(batch, self.spec.horizon, self.spec.action_dim)
        target = guide.previous.to(self.device).repeat_interleave(samples, dim=0)
        return Pull.make(guide, self.normalize_action(target, condition))

    def draw_normalized(
        self,
        condition: Any,
        shape: tuple[int, int, int],
        sampler: SamplerConfig | OwnSampler,
        **options: Unpack[DrawOptions],
    ) -> Tensor:
        """Normalised chunks (B', H, A) under a condition of B' rows; arguments as of `sampling.generate`.

        Families with a sampler of their own override this, and leave every other sampler to it. Where `path_width` is
        more than A, noise may have A numbers or so many; what is missing is drawn after it.

        Raises:
            ConfigError: for a sampler that belongs to another family.
        """
        if isinstance(sampler, OwnSampler):
            raise ConfigError(
                f"{type(self).__name__} cannot be sampled by {type(sampler).__name__}, which belongs to another "
                "family of policies; use DDIM, DDPM, DPMSolver, FlowEuler or FlowHeun"
            )
        width = self.path_width
        if width == shape[-1]:
            return generate(self, condition, shape, sampler, **options)
        drawn = generate(self, condition, (*shape[:-1], width), sampler, **padded(options, width))
        return drawn[..., : shape[-1]]
