"""Vision-language-action policies with a flow expert: pi0 (arXiv 2410.24164), pi0.5 (2504.16054), SmolVLA (2506.01844).

Images and an instruction become a prefix that is encoded once per control step; a smaller expert turns noise into a
chunk of actions while it attends to the prefix's keys and values. Trained as `flow.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.errors import SpecError
from ...data.normalizer import Normalizer
from ...data.spec import Spec
from ...data.windows import Batch
from ..encoder import LowDimEncoder
from ..flow import draw_times
from ..network import draw
from ..origin import OffsetActions, check_origin, origin_of
from ..path import mix, noise_from_velocity, widened
from ..policy import GenerativePolicy
from ..vision import checked_frames, frame_size
from .config import VLAConfig
from .expert import ActionExpert, check_width
from .mask import attention_mask, prefix_flags, suffix_flags, token_positions
from .streams import Cache, Place, Streams
from .text import build_tokenizer, padded
from .tokens import state_bins, state_prompt
from .vision import build_vision


@dataclass(frozen=True)
class Prefix:
    """What the expert needs to know of B observations: a `Condition` whose samples share it.

    Attributes:
        cache: keys and values of every layer, with B rows however many samples there are.
        place: of B * K suffixes.
        state: (B * K, O, expert_width) tokens of the state where it is part of the suffix, else None.
        origin: (B, A) what actions are relative to, or None.
    """

    cache: Cache
    place: Place
    state: Tensor | None
    origin: Tensor | None

    def repeat(self, samples: int) -> Self:
        """The same prefix for `samples` times as many chunks; its keys and values are not copied."""
        state = None if self.state is None else self.state.repeat_interleave(samples, dim=0)
        return replace(self, place=self.place.repeat(samples), state=state)


class VLAPolicy(OffsetActions, GenerativePolicy):
    """Images, an instruction and numbers to chunks of actions.

    Attributes:
        cameras: keys of the images, in the order of the prefix.
        instruction: key of the text, or None.
    """

    config: VLAConfig

    def __init__(self, config: VLAConfig, spec: Spec, normalizer: Normalizer) -> None:
        """Build with fresh weights."""
        super().__init__(spec, config)
        self.normalizer, self.sampler = normalizer, config.sampler
        self.cameras, self.instruction, numeric = _sorted_keys(spec)
        self.relative = config.relative
        if self.relative is not None:
            check_origin(spec, self.relative)
        if config.state == "text" and self.instruction is None:
            raise SpecError(
                "state=text writes numbers behind the instruction, and the policy's observations "
                f"{list(spec.observation)} hold none; name it in chunk.observation, or use state=suffix"
            )
        width = config.streams.prefix_width
        self.tokenizer = build_tokenizer(config.text)
        self.vision = build_vision(config.vision, width) if self.cameras else None
        self.embedding = nn.Embedding(self.tokenizer.vocabulary, width) if self.instruction else None
        self.encoder = _encoder(config, spec, numeric)
        self.state = self._state_layer()
        self.streams = Streams(config.streams, adaptive=config.fusion == "adarms")
        self.action_width = check_width("action_width", config.action_width, spec.action_dim)
        self.expert = ActionExpert(config.streams.expert_width, self.action_width, config.fusion)
        if config.frozen:
            for part in (self.vision, self.embedding, self.streams.prefix):
                if part is not None:
                    part.requires_grad_(False)

    def _state_layer(self) -> nn.Linear | None:
        if self.encoder is None or self.config.state == "text":
            return None
        streams = self.config.streams
        into = streams.prefix_width if self.config.state == "prefix" else streams.expert_width
        return nn.Linear(check_width("state_width", self.config.state_width, self.encoder.width), into)

    @property
    def path_width(self) -> int:
        """Numbers per action inside the network, those of padding too."""
        return self.action_width

    def encode(self, observation: Mapping[str, Any]) -> Prefix:
        """Encode images, instruction and state of B observations, once for all flow steps and samples."""
        return self._encode(observation, self._numbers(observation))

    def _numbers(self, observation: Mapping[str, Any]) -> Tensor | None:
        """Normalised numeric observations (B, O, C)."""
        return None if self.encoder is None else self.encoder(observation, self.normalizer)

    def _encode(self, observation: Mapping[str, Any], numbers: Tensor | None) -> Prefix:
        """Encode an observation whose numbers may be disturbed; actions are relative to what was really observed."""
        tokens, valid = self._seen_tokens(observation, numbers)
        state = None
        if self.state is not None and numbers is not None:
            state = self.state(widened(numbers, self.state.in_features))
        inside = state if self.config.state == "prefix" else None
        flags = prefix_flags(tokens.shape[1], 0 if inside is None else inside.shape[1]).to(tokens.device)
        if inside is not None:
            tokens = torch.cat([tokens, inside.to(tokens)], dim=1)
            valid = torch.cat([valid, valid.new_ones(inside.shape[:2])], dim=1)
        cache = self.streams.encode(tokens, attention_mask(flags, valid), token_positions(valid))
        state = state if inside is None else None
        place = self.streams.place(*self._suffix_layout(valid, 0 if state is None else state.shape[1]))
        origin = None
        if self.config.relative is not None:
            origin = origin_of(observation[self.config.relative], self.spec.action_dim).to(
                self.device, torch.float32
            )
        return Prefix(cache, place, state, origin)

    def _seen_tokens(self, observation: Mapping[str, Any], numbers: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, prefix_width) of images and text, and which are real (B, P)."""
        parts: list[Tensor] = []
        masks: list[Tensor] = []
        if self.vision is not None:
            for key in self.cameras:
                images = checked_frames(key, observation[key]).to(self.device)  # (B, O, H, W, 3)
                found = self.vision(images.flatten(0, 1)).unflatten(0, images.shape[:2]).flatten(1, 2)
                parts.append(found)
                masks.append(torch.ones(found.shape[:2], dtype=torch.bool, device=found.device))
        if self.embedding is not None and self.instruction is not None:
            texts = list(observation[self.instruction])
            if self.config.state == "text" and numbers is not None:
                bins = state_bins(numbers[:, -1]).cpu()
                texts = [state_prompt(text, row) for text, row in zip(texts, bins, strict=True)]
            words = self.tokenizer(texts)
            if self.config.state == "text":
                _check_whole(texts, words, self.config.text.length)
            ids, real = padded(words, self.device)
            scale = self.config.streams.prefix_width**0.5 if self.config.scaled_text else 1.0
            parts.append(self.embedding(ids) * scale)
            masks.append(real)
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Prefix) -> Tensor:
        """eps_hat - a_hat at x_s.

        Where the network's actions are wider than x, the missing numbers stand at 0, their mean; `sample` carries
        noise for them along instead.
        """
        full = self._velocity(widened(x, self.action_width), s, condition)
        return full[..., : x.shape[-1]].to(x)

    def predict_noise(self, x: Tensor, s: Tensor, condition: Prefix) -> Tensor:
        """eps_hat at x_s."""
        return noise_from_velocity(x, s, self.predict_velocity(x, s, condition))

    def _velocity(self, x: Tensor, s: Tensor, prefix: Prefix) -> Tensor:
        """The expert's answer (B * K, H, action_width)."""
        tokens, condition = self.expert.tokens(x, s.reshape(-1))
        if prefix.state is not None:
            tokens = torch.cat([prefix.state.to(tokens), tokens], dim=1)
        out = self.streams.decode(tokens, prefix.cache, prefix.place, condition)
        return self.expert.velocity(out[:, -x.shape[1] :])

    def _suffix_layout(self, valid: Tensor, state: int) -> tuple[Tensor, Tensor]:
        """Which tokens a suffix of so many state tokens and a chunk sees (B, L, P + L), and its positions (B, L)."""
        flags = suffix_flags(self.config.mask, state, self.spec.horizon).to(valid.device)
        own = attention_mask(flags, valid.new_ones(1, len(flags))).expand(len(valid), -1, -1)
        before = valid[:, None].expand(-1, len(flags), -1)
        positions = valid.sum(dim=1, keepdim=True) + torch.arange(len(flags), device=valid.device)
        return torch.cat([before, own], dim=2), positions

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity at one random position per chunk and draw."""
        numbers = self._numbers(batch.observation)
        if numbers is not None and self.config.observation_noise:
            numbers = self._disturbed(batch.observation, generator)
        draws = self.config.draws
        condition = self._encode(batch.observation, numbers).repeat(draws)
        action = batch.action.to(self.device, torch.float32).repeat_interleave(draws, dim=0)
        action = self.normalize_action(action, condition)
        s = draw_times(self.config.time, len(action), generator).to(action)
        noise = draw((*action.shape[:2], self.action_width), generator, action)
        x = mix(widened(action, self.action_width), noise, s)
        width = action.shape[-1]
        velocity = self._velocity(x, s, condition)[..., :width]
        error = F.mse_loss(velocity.float(), noise[..., :width] - action, reduction="none")
        if not self.config.mask_loss:
            return error.mean()
        weight = batch.mask.to(error).repeat_interleave(draws, dim=0)[..., None]
        return (error * weight).sum() / (weight.sum() * width).clamp_min(1)

    def _disturbed(self, observation: Mapping[str, Any], generator: torch.Generator) -> Tensor | None:
        """Features of numeric observations with noise on every number."""
        seen = dict(observation)
        for key in self.encoder.keys if self.encoder is not None else ():
            _, scale = self.normalizer.affine(key)
            x = observation[key].to(scale)
            seen[key] = x + self.config.observation_noise * scale * draw(x.shape, generator, x)
        return self._numbers(seen)


def _check_whole(texts: list[str], words: list[list[int]], length: int) -> None:
    """Raise for a prompt that may have been cut: the state stands at its end."""
    for text, row in zip(texts, words, strict=True):
        if len(row) >= length:
            raise SpecError(
                f"the prompt {text!r} fills all {length} tokens, so that numbers of the state may be cut off; "
                "raise policy.text.length or shorten the instruction"
            )


def _encoder(config: VLAConfig, spec: Spec, numeric: tuple[str, ...]) -> LowDimEncoder | None:
    if not numeric:
        return None
    return LowDimEncoder(
        spec.keep(numeric), octaves=config.octaves, points=config.points, origin=config.relative
    )


def _sorted_keys(spec: Spec) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """Keys of the images, of the text, and of the numbers."""
    fields = spec.observation
    cameras = tuple(key for key, field in fields.items() if field.is_image)
    text = [key for key, field in fields.items() if field.is_text]
    if not cameras and not text:
        raise SpecError(
            "a vision-language-action policy reads images, an instruction or both; name some in chunk.observation, "
            f"which now has {list(fields)}"
        )
    if len(text) > 1:
        raise SpecError(f"a vision-language-action policy reads one text, got {text}")
    for key in cameras:
        frame_size(key, spec)  # raises for what is no colour image
    numeric = tuple(key for key in fields if key not in (*cameras, *text))
    return cameras, text[0] if text else None, numeric
