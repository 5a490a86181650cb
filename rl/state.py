"""What critics and their actors know of an observation: one vector, from numbers, cameras and an instruction."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import SpecError
from ..data.normalizer import Normalizer
from ..data.spec import Spec
from ..policies.crop import View
from ..policies.encoder import ObservationEncoder
from ..policies.vision import VisionConfig
from ..policies.vla.text import TextConfig, build_tokenizer, padded


def text_key(spec: Spec) -> str | None:
    """The observation that is an instruction, if there is one.

    Raises:
        SpecError: if there are several.
    """
    keys = [key for key, field in spec.observation.items() if field.is_text]
    if len(keys) > 1:
        raise SpecError(f"a critic reads one text at most, got {keys}; name fewer in chunk.observation")
    return keys[0] if keys else None


class TextEncoder(nn.Module):
    """Mean of the embeddings of a text's tokens: which words there are, not their order."""

    def __init__(self, config: TextConfig, width: int) -> None:
        """Learn `width` numbers per token."""
        super().__init__()
        self.tokenizer = build_tokenizer(config)
        self.embedding = nn.Embedding(self.tokenizer.vocabulary, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts to (B, width); every different one is read once."""
        different = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        device = self.embedding.weight.device
        numbers, real = padded(self.tokenizer(list(different)), device)
        weight = real / real.sum(dim=1, keepdim=True).clamp_min(1)
        means = torch.einsum("bt,btw->bw", weight, self.embedding(numbers))
        return means[torch.tensor([different[text] for text in texts], device=device)]


class StateEncoder(nn.Module):
    """All that is observed as one vector; numbers and cameras as policies see them (`policies/encoder.py`).

    Attributes:
        text: key of the instruction, or None.
        width: F, numbers of the vector.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        octaves: int = 0,
        points: tuple[str, ...] = (),
        origin: str | None = None,
        vision: VisionConfig,
        text: TextConfig,
        text_width: int = 64,
    ) -> None:
        """Take the keys from the spec; arguments as of `ObservationEncoder` and `TextEncoder`."""
        super().__init__()
        self.text = text_key(spec)
        seen = tuple(key for key in spec.observation if key != self.text)
        if not seen:
            raise SpecError(
                f"a critic needs numbers or images beside the text {self.text!r}; name some in chunk.observation"
            )
        self.sight = ObservationEncoder(
            spec.keep(seen), octaves=octaves, points=points, origin=origin, vision=vision
        )
        self.words = None if self.text is None else TextEncoder(text, text_width)
        self.width = spec.observation_steps * self.sight.width + (text_width if self.words else 0)

    def draw_views(
        self, observation: Mapping[str, Any], generator: torch.Generator
    ) -> Mapping[str, View] | None:
        """What is seen of training frames, drawn at random; None without cameras."""
        return self.sight.draw_views(observation, generator)

    def forward(
        self,
        observation: Mapping[str, Any],
        normalizer: Normalizer,
        views: Mapping[str, View] | None = None,
    ) -> Tensor:
        """Key -> (B, O, *shape) in physical units, the text B strings, to (B, F)."""
        seen = self.sight(observation, normalizer, views).flatten(1)
        if self.words is None or self.text is None:
            return seen
        return torch.cat([seen, self.words(observation[self.text])], dim=1)
