"""The baseline without learning: repeat what the demonstrator did in the most similar recorded moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.episodes import Episodes
from ..data.normalizer import Normalizer, NormalizerConfig
from ..data.spec import Spec
from ..data.windows import Batch, Windows
from .chunk import ChunkConfig
from .encoder import LowDimEncoder
from .policy import Policy, start_with


@dataclass(frozen=True, kw_only=True)
class NearestConfig:
    """A nearest-neighbour policy.

    Attributes:
        chunk: observations and window lengths.
        normalizer: how observations are scaled before distances are taken.
    """

    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    normalizer: NormalizerConfig = field(default_factory=NormalizerConfig)


class NearestPolicy(Policy):
    """The chunk of the recorded window whose normalised observations are closest; the first of equals.

    The recordings are buffers, saved with the weights: `features` (N, O * C) and `chunks` (N, H, A).
    """

    def __init__(self, config: NearestConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build without recordings; `remember` or a saved state brings them."""
        super().__init__(spec, config)
        self.normalizer = normalizer
        self.encoder = LowDimEncoder(spec)
        self.register_buffer("features", torch.zeros(0, spec.observation_steps * self.encoder.width))
        self.register_buffer("chunks", torch.zeros(0, spec.horizon, spec.action_dim))

    def remember(self, episodes: Episodes) -> None:
        """Store every window of the episodes."""
        batch = Windows(episodes, self.spec).batch(np.arange(episodes.steps))
        self.features = self.encoder(batch.observation, self.normalizer).flatten(1)
        self.chunks = batch.action.to(self.features)

    def _look_up(self, observation: Mapping[str, Tensor]) -> Tensor:
        query = self.encoder(observation, self.normalizer).flatten(1)
        # Differences, not products: an observation that was recorded is at distance 0 exactly.
        distance = torch.cdist(
            query, self.get_buffer("features"), compute_mode="donot_use_mm_for_euclid_dist"
        )
        return self.get_buffer("chunks")[distance.argmin(dim=1)]

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """The recorded chunk, `samples` times; see `Policy.sample`."""
        self.check_prefix(prefix, self.check_observation(observation))
        with torch.no_grad():
            chunk = self._look_up(observation)
        return start_with(chunk[:, None].repeat(1, samples, 1, 1), prefix)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared normalised error of the recalled chunks; nothing in it can be trained."""
        recalled = self.normalizer.normalize("action", self._look_up(batch.observation))
        return F.mse_loss(recalled, self.normalizer.normalize("action", batch.action.to(recalled)))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("features", "chunks"):  # the number of recordings is known only now
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(saved, device=self.get_buffer(name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)
