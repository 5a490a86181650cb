"""What critics that learn from recorded episodes share: features, an ensemble with its slow copy, an actor, health.

Reference: V-GPS (arXiv 2410.13816) and its released code: actions scaled to [-1, 1] and clipped just inside, values as
the least of the target networks.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError, SpecError
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.spec import Spec
from ..policies.chunk import ChunkConfig
from ..policies.crop import View
from ..policies.encoder import check_octaves
from ..policies.origin import check_origin, from_offsets, origin_of, to_offsets
from ..policies.policy import check_observation
from ..policies.vision import VisionConfig
from ..policies.vla.text import BytesConfig, TextConfig
from .actor import Actor
from .critic import Critic
from .labels import LabelsConfig
from .q_network import QNetwork
from .state import StateEncoder, text_key
from .transitions import Transition, with_texts

EDGE = 1 - 1e-5  # actions are clipped to this, in normalised numbers


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """What every critic that learns offline is configured by.

    Attributes:
        chunk: observations, and how many actions are scored together (`horizon`); 1 scores single actions.
        normalizer: how observations and actions are scaled; actions by `min_max` or `quantile`, since what lies beyond
            [-1, 1] is clipped.
        labels: what is worth something.
        vision: how camera frames are read, where `chunk.observation` names some.
        text: how an instruction becomes tokens, where `chunk.observation` names one.
        octaves: sines and cosines of every observed number; see `policies.network.NetworkConfig`.
        relative: observation key whose latest value actions are offsets from, or None for absolute actions.
        points: observation keys that hold points in the space of the action, whose offsets from `relative` are seen too.
        hidden: widths of the hidden layers of every network.
        critics: E, networks whose least value counts.
        target_rate: how far the target networks move towards the trained ones at every update.
        actor_rate: the actor's learning rate as a multiple of the critics'.
        negatives: share of transitions that are learned under the instruction of another one, as failures.
    """

    chunk: ChunkConfig = field(default_factory=lambda: ChunkConfig(observation_steps=1, horizon=1, execute=1))
    normalizer: NormalizerConfig = field(default_factory=NormalizerConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=BytesConfig)
    octaves: int = 0
    relative: str | None = None
    points: tuple[str, ...] = ()
    hidden: tuple[int, ...] = (256, 256)
    critics: int = 2
    target_rate: float = 0.005
    actor_rate: float = 1 / 3
    negatives: float = 0.0

    def __post_init__(self) -> None:
        check_octaves(self.octaves)
        if self.normalizer.action not in ("min_max", "quantile"):
            raise ConfigError(
                f"normalizer.action must be min_max or quantile, got {self.normalizer.action!r}: a critic clips actions "
                "to [-1, 1]"
            )
        if self.chunk.start != 0:
            raise ConfigError(
                f"chunk.start must be 0, got {self.chunk.start}: a critic scores actions from now on"
            )
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden must name one or more positive widths, got {self.hidden}")
        if self.critics < 1:
            raise ConfigError(f"critics must be at least 1, got {self.critics}; 2 is usual")
        if not 0 < self.target_rate <= 1:
            raise ConfigError(f"target_rate must lie in (0, 1], got {self.target_rate}; 0.005 is usual")
        if not 0 < self.actor_rate < float("inf"):
            raise ConfigError(f"actor_rate must be positive and finite, got {self.actor_rate}")
        if not 0 <= self.negatives < 1:
            raise ConfigError(f"negatives must lie in [0, 1), got {self.negatives}; 0.1 is usual")
        if self.negatives and self.labels.source != "success":
            raise ConfigError(
                f"negatives {self.negatives} are failures, which labels.source={self.labels.source} does not know; "
                "use labels.source=success or negatives=0"
            )


class Judge(nn.Module):
    """An encoder and the networks that value actions by it."""

    def __init__(self, encoder: StateEncoder, heads: QNetwork) -> None:
        """Own both."""
        super().__init__()
        self.encoder, self.heads = encoder, heads


class OfflineCritic(Critic):
    """A critic trained on `Transition`s by the training loop, with slow copies of its networks to value with.

    Attributes:
        config: what it was built from.
        normalizer: how it scales observations and actions.
        online: the trained networks.
        target: their slow copy, which `value` asks.
        actor: proposes actions.
    """

    def __init__(self, config: OfflineConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights, drawn from torch's global generator as usual for modules."""
        super().__init__(spec)
        self.config, self.normalizer = config, normalizer
        if config.relative is not None:
            check_origin(spec, config.relative)
        if config.negatives and text_key(spec) is None:
            raise ConfigError(
                f"negatives {config.negatives} need an instruction among the critic's observations "
                f"{list(spec.observation)}; name it in chunk.observation or use negatives=0"
            )
        self.width = spec.horizon * spec.action_dim
        encoder = self._make_encoder()
        self.online = Judge(encoder, QNetwork(config.critics, encoder.width, self.width, config.hidden))
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.sight = self._make_encoder()  # of the actor
        self.actor = Actor(self.sight.width, self.width, config.hidden)
        self._newest: dict[str, Tensor] = {}

    @abstractmethod
    def forward(self, batch: Transition, generator: torch.Generator) -> Tensor:
        """Training loss of one batch, a scalar: of the critic, and of the actor beside it."""

    @torch.no_grad()
    def held_out_error(self, batch: Transition, generator: torch.Generator) -> Tensor:
        """Squared difference of the values of recorded actions from what followed them, their Monte-Carlo returns.

        The loss would not do: its targets move, and the actor's part of it falls as values rise.
        """
        del generator
        values = self.value(batch.observation, batch.action[:, None])[:, 0]
        return (values - batch.returns).square().mean()

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device

    def value(self, observation: Mapping[str, Any], actions: Tensor) -> Tensor:
        """Values (B, K), see `Critic.value`: the least of the target networks'."""
        rows = check_observation(self.spec, observation, "critic")
        wanted = (self.spec.horizon, self.spec.action_dim)
        if actions.ndim != 4 or len(actions) != rows or actions.shape[2:] != wanted:
            raise SpecError(
                f"actions have shape {tuple(actions.shape)}; allowed is ({rows}, candidates, {wanted[0]}, {wanted[1]})"
            )
        # In bfloat16 the nearest two values around -30 are an eighth apart: candidates would tie.
        with torch.autocast(self.device.type, enabled=False):
            features = self.target.encoder(observation, self.normalizer)
            return self.target.heads(features, self.normalize_action(actions, observation)).amin(dim=0)

    @torch.no_grad()
    def propose(
        self, observation: Mapping[str, Any], *, samples: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Actions (B, K, n, A) of the actor, physical units; without a generator, of a fresh one seeded with 0."""
        rows = check_observation(self.spec, observation, "critic")
        generator = generator or torch.Generator().manual_seed(0)
        x, _ = self.actor.sample(self.sight(observation, self.normalizer), samples, generator)
        chunks = x.view(rows * samples, self.spec.horizon, self.spec.action_dim)
        return from_offsets(self.normalizer, chunks, self._origin(observation)).unflatten(0, (rows, samples))

    def normalize_action(self, actions: Tensor, observation: Mapping[str, Any]) -> Tensor:
        """Physical actions (B, K, n, A) to (B, K, n * A) in [-1, 1]; beyond the edge they count as the edge itself."""
        flat = actions.to(self.device, torch.float32).flatten(0, 1)
        x = to_offsets(self.normalizer, flat, self._origin(observation))
        return x.clamp(-EDGE, EDGE).reshape(*actions.shape[:2], self.width)

    def after_update(self) -> None:
        """Let the target networks follow; the training loop calls it once per update."""
        with torch.no_grad():
            for slow, fast in self.followers():
                torch._foreach_lerp_(
                    list(slow.parameters()), list(fast.parameters()), self.config.target_rate
                )

    def followers(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pairs of a slow network and the one it follows."""
        return [(self.target, self.online)]

    def rate_factors(self) -> dict[str, float]:
        """The actor learns more slowly than the critics."""
        return {"actor.": self.config.actor_rate, "sight.": self.config.actor_rate}

    def health(self) -> dict[str, float]:
        """How the newest training batch was valued: `q_data` beside `td_target` and `mc_return`, and more."""
        return {name: float(value) for name, value in self._newest.items()}

    def told(self, batch: Transition, generator: torch.Generator) -> Transition:
        """The batch with some instructions exchanged for others that occur in it, as failures."""
        key, share = self.online.encoder.text, self.config.negatives
        if key is None or not share:
            return batch
        texts = list(batch.observation[key])
        different = sorted(set(texts))
        if len(different) < 2:
            return batch
        device = generator.device
        wrong = torch.rand(len(texts), generator=generator, device=device) < share
        shift = torch.randint(1, len(different), (len(texts),), generator=generator, device=device)
        number = {text: i for i, text in enumerate(different)}
        exchanged = [
            different[(number[text] + by) % len(different)] if bad else text
            for text, by, bad in zip(texts, shift.tolist(), wrong.tolist(), strict=True)
        ]
        return with_texts(batch, key, exchanged, wrong.to(batch.returns.device), self.config.labels)

    def views(self, observation: Mapping[str, Any], generator: torch.Generator) -> Mapping[str, View] | None:
        """What is seen of frames in training; in evaluation their centre."""
        return self.online.encoder.draw_views(observation, generator) if self.training else None

    def note(self, batch: Transition, q: Tensor, target: Tensor, **more: Tensor) -> None:
        """Remember what `health` says of a training batch: values (E, B) of its actions and their targets (B,)."""
        if not self.training:
            return
        with torch.no_grad():
            least = q.amin(dim=0)
            pair = torch.stack([least, batch.returns.to(least)])
            self._newest = {
                "q_data": least.mean(),
                "td_target": target.mean(),
                "mc_return": batch.returns.mean(),
                "q_return_correlation": _correlation(pair),
                **{name: value.detach() for name, value in more.items()},
            }

    def _origin(self, observation: Mapping[str, Any]) -> Tensor | None:
        if self.config.relative is None:
            return None
        return origin_of(observation[self.config.relative].to(self.device), self.spec.action_dim).float()

    def _make_encoder(self) -> StateEncoder:
        config = self.config
        return StateEncoder(
            self.spec,
            octaves=config.octaves,
            points=config.points,
            origin=config.relative,
            vision=config.vision,
            text=config.text,
        )


def _correlation(pair: Tensor) -> Tensor:
    """Pearson's, of the two rows (2, B); 0 where one of them does not vary."""
    a, b = pair - pair.mean(dim=1, keepdim=True)
    return (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12)
