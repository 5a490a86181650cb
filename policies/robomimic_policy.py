"""robomimic's behaviour cloning (arXiv 2108.03298) as a policy: BC, BC-RNN-GMM and BC-Transformer as baselines.

The networks and losses are robomimic's own; windows, updates, checkpoints and execution are ours. robomimic carries a
recurrent network's state from step to step and clears it every `horizon` steps; here the network sees the latest O
observations at every step, so that the policy keeps nothing between calls. A chunk holds what the network says about
each of these O steps, the last of which is now.
"""

# robomimic brings no stubs.
# pyright: reportMissingImports=false

import contextlib
import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..data.errors import ConfigError, SpecError
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.schema import nearest
from ..data.spec import Spec
from ..data.windows import Batch
from .chunk import ChunkConfig
from .policy import Policy, start_with

Algorithm = Literal["bc", "bc_rnn_gmm", "bc_transformer"]

# What robomimic's low-dimensional experiments set; everything else is its default.
_SETTINGS: Mapping[Algorithm, dict[str, Any]] = {
    "bc": {},
    "bc_rnn_gmm": {"actor_layer_dims": [], "rnn": {"enabled": True}, "gmm": {"enabled": True}},
    "bc_transformer": {
        "actor_layer_dims": [],
        "transformer": {"enabled": True, "supervise_all_steps": True},
        "gmm": {"enabled": True},
    },
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of robomimic's observations within one of ours.

    Attributes:
        name: robomimic's.
        key: ours.
        begin: its first number there.
        end: one past its last.
    """

    name: str
    key: str
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class RobomimicConfig:
    """One of robomimic's algorithms.

    Attributes:
        algorithm: which.
        chunk: O observations, and as many actions, the last of which is executed; O is 1 for `bc`.
        normalizer: how observations and actions are scaled; robomimic expects actions in [-1, 1].
        settings: robomimic's own settings of the algorithm that differ, as JSON, such as
            `{"rnn": {"hidden_dim": 1000}}`.
        parts: what robomimic calls the observations; our keys if empty.
    """

    algorithm: Algorithm = "bc"
    chunk: ChunkConfig = field(default_factory=lambda: ChunkConfig(observation_steps=1, horizon=1, execute=1))
    normalizer: NormalizerConfig = field(default_factory=lambda: NormalizerConfig(observation="identity"))
    settings: str = "{}"
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.algorithm not in get_args(Algorithm):
            raise ConfigError(
                f"unknown algorithm {self.algorithm!r}; {nearest(self.algorithm, get_args(Algorithm))}"
            )
        steps, chunk = self.chunk.observation_steps, self.chunk
        if (chunk.horizon, chunk.execute, chunk.start) != (steps, 1, 1 - steps):
            raise ConfigError(
                f"robomimic predicts one action per observation: with observation_steps {steps}, horizon must be "
                f"{steps}, execute 1 and start {1 - steps}, got {chunk.horizon}, {chunk.execute} and {chunk.start}"
            )
        if self.algorithm == "bc" and steps != 1:
            raise ConfigError(
                f"bc sees one observation, got observation_steps {steps}; bc_rnn_gmm sees several"
            )
        try:
            fine = isinstance(json.loads(self.settings), dict)
        except json.JSONDecodeError:
            fine = False
        if not fine:
            raise ConfigError(f"settings must be a JSON object, got {self.settings!r}")


class RobomimicPolicy(Policy):
    """One of robomimic's actors behind our policies' interface."""

    config: RobomimicConfig

    def __init__(self, config: RobomimicConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights.

        Raises:
            ConfigError: if robomimic or its torchvision cannot be imported.
            SpecError: for observations that are not vectors.
        """
        super().__init__(spec, config)
        self.normalizer = normalizer
        images = [key for key, f in spec.observation.items() if len(f.shape) != 1 or f.dtype == "uint8"]
        if images:
            raise SpecError(
                f"observation {images[0]!r} is no vector, and these baselines see vectors; name others in "
                f"chunk.observation, here {sorted(set(spec.observation) - set(images))}"
            )
        self.parts = config.parts or tuple(
            Part(name=key, key=key, begin=0, end=f.size) for key, f in spec.observation.items()
        )
        self._algorithm = _build(config, self.parts, spec)
        self.nets = self._algorithm.nets
        sections = self._algorithm.algo_config
        self._sequence = bool(sections.rnn.enabled or sections.transformer.enabled)

    def _inputs(self, observation: Mapping[str, Tensor]) -> "OrderedDict[str, Tensor]":
        """Normalised observations by robomimic's names, (B, O, D), or (B, D) for networks without a memory."""
        scaled = {}
        for key in self.spec.observation:
            offset, scale = self.normalizer.affine(key)
            scaled[key] = (observation[key].to(scale) - offset) / scale
        inputs = {part.name: scaled[part.key][..., part.begin : part.end] for part in self.parts}
        return OrderedDict((k, x if self._sequence else x[:, -1]) for k, x in inputs.items())

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Robomimic's own loss of its own algorithm."""
        action = self.normalizer.normalize("action", batch.action.to(self.device))
        prepared = {
            "obs": self._inputs(batch.observation),
            "goal_obs": None,
            "actions": action if self._sequence else action[:, -1],
        }
        predictions = self._algorithm._forward_training(prepared)
        return self._algorithm._compute_losses(predictions, prepared)["action_loss"]

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Draw from the actor's mixture, or repeat its one answer; see `Policy.sample`."""
        self.check_prefix(prefix, self.check_observation(observation))
        generator = generator or torch.Generator().manual_seed(0)
        with torch.no_grad():
            inputs, actor = self._inputs(observation), self.nets["policy"]
            if hasattr(actor, "forward_train"):
                mixture = actor.forward_train(obs_dict=inputs, goal_dict=None)
                drawn = _draw(mixture, samples, generator)
            else:
                drawn = actor(obs_dict=inputs, goal_dict=None).unsqueeze(1).repeat_interleave(samples, 1)
            drawn = drawn if self._sequence else drawn.unsqueeze(2)
            chunks = self.normalizer.unnormalize("action", drawn)
        return start_with(chunks, prefix)


def _draw(mixture: Any, samples: int, generator: torch.Generator) -> Tensor:
    """(B, K, ..., A) draws of a mixture of Gaussians or of one Gaussian, from a generator of our own."""
    parts = mixture.component_distribution if hasattr(mixture, "component_distribution") else mixture
    mean, spread = parts.base_dist.loc, parts.base_dist.scale
    if parts is not mixture:
        share = mixture.mixture_distribution.probs.flatten(0, -2).cpu()  # (B * ..., M)
        picked = torch.multinomial(share, samples, replacement=True, generator=generator)
        picked = (
            picked.to(mean.device)
            .view(*mean.shape[:-2], samples, 1)
            .expand(*[-1] * (mean.ndim - 1), mean.shape[-1])
        )
        mean, spread = mean.gather(-2, picked), spread.gather(-2, picked)  # (B, ..., K, A)
    else:
        mean, spread = (x.unsqueeze(-2).repeat_interleave(samples, -2) for x in (mean, spread))
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
    return (mean + spread * noise).movedim(-2, 1)


def _build(config: RobomimicConfig, parts: tuple[Part, ...], spec: Spec) -> Any:
    """Robomimic's algorithm, its networks drawn from torch's global generator as usual for modules."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        factories, observations = _import()
        made = factories[0]("bc")
        own, steps = json.loads(config.settings), config.chunk.observation_steps
        with made.unlocked():
            made.observation.modalities.obs.low_dim = [part.name for part in parts]
            for settings in (_SETTINGS[config.algorithm], own):
                _merge(made.algo, settings)
            made.algo.rnn.horizon = made.algo.transformer.context_length = steps
        observations.initialize_obs_utils_with_config(made)
        try:
            return factories[1](
                "bc",
                made,
                obs_key_shapes=OrderedDict((part.name, [part.end - part.begin]) for part in parts),
                ac_dim=spec.action_dim,
                device=torch.device("cpu"),
            )
        except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"robomimic cannot build {config.algorithm} with settings {config.settings} ({error!r}); "
                "check them against robomimic's templates"
            ) from error


def _merge(section: Any, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key not in section:
            raise ConfigError(f"robomimic has no setting {key!r} here; {nearest(key, section.keys())}")
        if isinstance(value, Mapping) and isinstance(section[key], Mapping):
            _merge(section[key], value)
        else:
            section[key] = value


def _import() -> tuple[tuple[Any, Any], Any]:
    """Robomimic's two factories and its bookkeeping of observations."""
    try:
        import robomimic.utils.obs_utils as observations
        from robomimic.algo import algo_factory
        from robomimic.config import config_factory
    except (
        ImportError,
        RuntimeError,
    ) as error:  # torchvision raises the latter beside a torch of another build
        raise ConfigError(
            f"robomimic's algorithms cannot be imported ({error}); they need robomimic, six and a torchvision "
            f"built for torch {torch.__version__}: pip install 'sensorimotor[robomimic]' six, and torchvision from the "
            "index that torch came from"
        ) from error
    return (config_factory, algo_factory), observations
