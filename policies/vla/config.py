"""What a vision-language-action policy is configured by."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from ...data.errors import ConfigError
from ...data.normalizer import NormalizerConfig
from ...data.schema import nearest
from ..chunk import ChunkConfig
from ..encoder import check_octaves
from ..flow import TimeDistribution
from ..sampling import FlowEuler, SamplerConfig
from .mask import MaskRule, StatePlace
from .streams import StreamsConfig
from .text import BytesConfig, TextConfig, WordsConfig
from .vision import PatchConfig, VisionConfig

Fusion = Literal["concat", "adarms"]


@dataclass(frozen=True, kw_only=True)
class VLAConfig:
    """A vision-language-action policy with a flow expert; pi0's form, small, by default.

    Attributes:
        chunk: observations and window lengths; name its keys, images and the instruction among them.
        normalizer: how numeric observations and actions are scaled.
        vision: how pictures become tokens.
        text: how the instruction becomes tokens.
        streams: size of the prefix and of the expert.
        mask: who sees whom among the actions: all of them (`pi0`), or only earlier ones (`smolvla`).
        state: where numeric observations go: a token of the expert (`suffix`, pi0), the last token of the prefix
            (`prefix`, SmolVLA), or words of the prompt (`text`, pi0.5).
        fusion: how the expert learns the flow time: joined to every action (`concat`, pi0, SmolVLA), or through its
            norms (`adarms`, pi0.5).
        time: where on the path to train; see `flow.FlowConfig`.
        sampler: how chunks are sampled.
        octaves: sines and cosines of every observed number; see `network.NetworkConfig`.
        relative: observation key whose latest value actions are offsets from, or None for absolute actions.
        points: observation keys that hold points in the space of the action; see `network.NetworkConfig`.
        observation_noise: standard deviation of noise added to normalised numeric observations in training.
        mask_loss: leave repeated actions past an episode's edge out of the loss.
        draws: how many noises every training window is learned from at once; they share its prefix.
        state_width: numbers the state's layer takes, the missing ones zero; None takes as many as there are.
        action_width: numbers of an action inside the network, the missing ones noise of their own; None for A.
        scaled_text: multiply the instruction's tokens by the root of their width, as Gemma does.
        frozen: train the expert and the projections alone.
    """

    chunk: ChunkConfig = field(default_factory=lambda: ChunkConfig(observation_steps=1))
    normalizer: NormalizerConfig = field(default_factory=NormalizerConfig)
    vision: VisionConfig = field(default_factory=PatchConfig)
    text: TextConfig = field(default_factory=BytesConfig)
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    mask: MaskRule = "pi0"
    state: StatePlace = "suffix"
    fusion: Fusion = "concat"
    time: TimeDistribution = "beta"
    sampler: SamplerConfig = field(default_factory=FlowEuler)
    octaves: int = 0
    relative: str | None = None
    points: tuple[str, ...] = ()
    observation_noise: float = 0.0
    mask_loss: bool = False
    draws: int = 1
    state_width: int | None = None
    action_width: int | None = None
    scaled_text: bool = False
    frozen: bool = False

    def __post_init__(self) -> None:
        for name, choices in (
            ("mask", MaskRule),
            ("state", StatePlace),
            ("fusion", Fusion),
            ("time", TimeDistribution),
        ):
            value, allowed = getattr(self, name), get_args(choices)
            if value not in allowed:
                raise ConfigError(f"unknown {name} {value!r}; {nearest(value, allowed)}")
        if self.draws < 1:
            raise ConfigError(f"draws must be at least 1, got {self.draws}")
        if not 0 <= self.observation_noise < float("inf"):
            raise ConfigError(
                f"observation_noise must be at least 0 and finite, got {self.observation_noise}"
            )
        check_octaves(self.octaves)
        if self.state == "text" and isinstance(self.text, WordsConfig):
            raise ConfigError(
                "state=text writes numbers into the prompt, which a list of words cannot hold; use text=bytes"
            )
        if self.state == "text" and (self.octaves or self.points):
            raise ConfigError("state=text writes the plain numbers; use octaves=0 and no points")
