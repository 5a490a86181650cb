"""Named starting points: small ones that learn on a laptop, and the published ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.errors import ConfigError
from ..data.normalizer import NormalizerConfig
from ..data.schema import nearest
from ..training.config import EmaConfig
from .chunk import ChunkConfig
from .consistency import ConsistencyConfig, ConsistencyJump
from .descent import Descent
from .descent_step import DescentStep
from .diffusion import DiffusionConfig
from .energy import EnergyConfig
from .energy_mlp import EnergyMLPConfig
from .energy_transformer import EnergyTransformerConfig
from .factory import PolicyConfig
from .flow import FlowConfig
from .mlp import MLPConfig
from .nearest import NearestConfig
from .reflow import ReflowConfig
from .regression import RegressorConfig
from .resnet import ResNetConfig
from .robomimic_policy import RobomimicConfig
from .sampling import DDPM, FlowEuler
from .streaming import StreamingConfig
from .transformer import TransformerConfig
from .unet import UNetConfig
from .vision import VisionConfig
from .vla.config import VLAConfig
from .vla.text import WordsConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A policy and how to train it.

    Attributes:
        policy: what to train.
        training: fields of `training.config.TrainingConfig` that differ from its defaults.
    """

    policy: PolicyConfig
    training: Mapping[str, Any] = field(default_factory=dict)


_SMALL_UNET = UNetConfig(channels=(64, 128), kernel=5, step_width=64)
_SMALL_TRANSFORMER = TransformerConfig(width=64, layers=2, attention_dropout=0.1)
_SMALL = {"learning_rate": 1e-3, "weight_decay": 1e-4, "steps": 10_000}

_FLOW_MLP = FlowConfig(
    normalizer=NormalizerConfig(action="mean_std"),
    trunk=MLPConfig(width=512, depth=3, expansion=2),
    time="uniform",
    sampler=FlowEuler(steps=10, temperature=0.75),
    octaves=4,
    relative="state",
    history_dropout=0.5,
    observation_noise=0.008,
    mask_loss=True,
)
_FLOW_POINTS = replace(
    _FLOW_MLP, points=("environment",), point_noise=0.014, sampler=FlowEuler(steps=10, temperature=0.5)
)
# Cameras are the costly part, hence one frame per window, from which many noises are learned.
_FLOW_PIXELS = replace(
    _FLOW_MLP,
    chunk=ChunkConfig(observation=("state", "image.top"), observation_steps=1),
    vision=VisionConfig(encoder=ResNetConfig(width=16, blocks=(1, 1, 1)), crop=0.9, features=0),
    sampler=FlowEuler(steps=10, temperature=0.5),
    history_dropout=0.0,
    draws=4,
)
_FAST = {
    "learning_rate": 1e-3,
    "betas": (0.9, 0.99),
    "weight_decay": 1e-2,
    "warmup_steps": 300,
    "minimum_ratio": 1e-3,
    "precision": "bf16",
    "ema": EmaConfig(max_decay=0.999),
    "threads": 1,  # its matrices are too small to share: two threads gain little, and lose much on a busy machine
}

_ARM_MLP = MLPConfig(width=512, depth=3, expansion=2)
_ARM = {"history_dropout": 0.5, "observation_noise": 0.005, "mask_loss": True}

_TEN_STEPS = ChunkConfig(observation_steps=10, horizon=10, execute=1, start=-9)
_ROBOMIMIC = {
    "batch_size": 100,
    "learning_rate": 1e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "clip_norm": None,
    "ema": None,
}
_VLA_TINY = VLAConfig(
    chunk=ChunkConfig(observation=("state", "image.top", "instruction"), observation_steps=1),
    text=WordsConfig(words=("push", "the", "t", "to", "left", "right", "goal")),
)

_VLA_PUSH_T = replace(
    _VLA_TINY,
    chunk=ChunkConfig(observation=("state", "environment", "image.top", "instruction"), observation_steps=1),
    normalizer=NormalizerConfig(action="mean_std"),
    time="uniform",
    sampler=FlowEuler(steps=10, temperature=0.5),
    octaves=4,
    relative="state",
    points=("environment",),
    observation_noise=0.008,
    mask_loss=True,
    draws=4,
)

PRESETS: Mapping[str, Preset] = {
    "diffusion": Preset(policy=DiffusionConfig(trunk=_SMALL_UNET), training=_SMALL),
    "diffusion_transformer": Preset(policy=DiffusionConfig(trunk=_SMALL_TRANSFORMER), training=_SMALL),
    "flow": Preset(policy=FlowConfig(trunk=_SMALL_UNET), training=_SMALL),
    "flow_transformer": Preset(policy=FlowConfig(trunk=_SMALL_TRANSFORMER), training=_SMALL),
    "regressor": Preset(policy=RegressorConfig(trunk=MLPConfig(width=256)), training=_SMALL),
    "nearest": Preset(policy=NearestConfig()),
    # Robots commanded by positions: `state` begins with the position that actions command.
    "flow_mlp": Preset(policy=_FLOW_MLP, training=_FAST | {"steps": 6000}),
    # The same where `environment` is a list of points of one body, in the space of the action.
    "flow_points": Preset(policy=_FLOW_POINTS, training=_FAST | {"steps": 8000}),
    # The same with a diffusion process; actions are scaled as there, so that the two compose. Four standard deviations
    # bound what is predicted.
    "diffusion_points": Preset(
        policy=DiffusionConfig(
            **_FLOW_POINTS.shared(), prediction="v_prediction", clip=4.0, sampler=_FLOW_POINTS.sampler
        ),
        training=_FAST | {"steps": 8000},
    ),
    # Students of a trained policy with the same features, which policy.teacher=runs/... names.
    "consistency": Preset(policy=ConsistencyConfig(trunk=_SMALL_UNET), training=_SMALL),
    "consistency_points": Preset(
        policy=ConsistencyConfig(
            **_FLOW_POINTS.shared(), data_std=1.0, sampler=ConsistencyJump(clip=None, temperature=0.5)
        ),
        training=_FAST | {"steps": 6000},
    ),
    "reflow": Preset(policy=ReflowConfig(trunk=_SMALL_UNET), training=_SMALL),
    "reflow_points": Preset(
        policy=ReflowConfig(**_FLOW_POINTS.shared(), sampler=FlowEuler(steps=1, temperature=0.5)),
        training=_FAST | {"steps": 6000},
    ),
    "streaming": Preset(policy=StreamingConfig(trunk=MLPConfig(width=256)), training=_SMALL),
    "streaming_points": Preset(
        policy=StreamingConfig(**_FLOW_POINTS.shared()), training=_FAST | {"steps": 8000}
    ),
    "ebt": Preset(policy=EnergyConfig(trunk=EnergyMLPConfig(width=256, depth=2)), training=_SMALL),
    # As `flow_points`, with an energy in place of the velocity; an update costs about twice as much.
    "ebt_points": Preset(
        policy=EnergyConfig(**_FLOW_POINTS.shared(trunk=EnergyMLPConfig(width=512, depth=3, expansion=2))),
        training=_FAST | {"steps": 8000},
    ),
    # EBT-Policy, arXiv 2510.27545 and its released configuration, low-dimensional observations. The release does not
    # bound the energy that its steps are scaled by.
    "ebt_published": Preset(
        policy=EnergyConfig(
            chunk=ChunkConfig(observation_steps=2, horizon=16, execute=8, start=-1),
            trunk=EnergyTransformerConfig(width=256, layers=8, observation_layers=8, heads=4),
            objective="regress",
            step=DescentStep(size=1000.0, momentum=0.9, normalize=True, temperature=9.0),
            sampler=Descent(steps=20, tolerance=1e-3),
        ),
        training={
            "batch_size": 64,
            "learning_rate": 3e-5,
            "betas": (0.9, 0.999),
            "weight_decay": 1e-6,
            "warmup_steps": 500,
        },
    ),
    # The same from a camera `image.top` in place of the points.
    "flow_pixels": Preset(policy=_FLOW_PIXELS, training=_FAST | {"steps": 16_000, "batch_size": 64}),
    "diffusion_pixels": Preset(
        policy=DiffusionConfig(
            chunk=_FLOW_PIXELS.chunk,
            normalizer=NormalizerConfig(),
            trunk=_FLOW_PIXELS.trunk,
            vision=_FLOW_PIXELS.vision,
            octaves=4,
            relative="state",
            observation_noise=0.008,
            mask_loss=True,
            draws=4,
        ),
        training=_FAST | {"steps": 16_000, "batch_size": 64},
    ),
    # Arms commanded by increments of the hand's pose, which are numbers of their own and relative to nothing observed.
    "flow_arm": Preset(
        policy=FlowConfig(trunk=_ARM_MLP, time="uniform", **_ARM), training=_FAST | {"steps": 10_000}
    ),
    # The same from the two cameras that `task.images=true` adds, with the arm's own numbers and not the object's.
    "flow_arm_pixels": Preset(
        policy=FlowConfig(
            chunk=ChunkConfig(
                observation=("state", "image.agentview", "image.robot0_eye_in_hand"), observation_steps=1
            ),
            trunk=_ARM_MLP,
            vision=_FLOW_PIXELS.vision,
            time="uniform",
            observation_noise=0.005,
            mask_loss=True,
            draws=4,
        ),
        training=_FAST | {"steps": 16_000, "batch_size": 64},
    ),
    "diffusion_arm": Preset(
        policy=DiffusionConfig(trunk=_ARM_MLP, **_ARM), training=_FAST | {"steps": 10_000}
    ),
    # robomimic's own baselines, arXiv 2108.03298; these need the extra `robomimic` and a torchvision.
    "robomimic_bc": Preset(policy=RobomimicConfig(), training=_ROBOMIMIC),
    "robomimic_bc_rnn_gmm": Preset(
        policy=RobomimicConfig(algorithm="bc_rnn_gmm", chunk=_TEN_STEPS), training=_ROBOMIMIC
    ),
    "robomimic_bc_transformer": Preset(
        policy=RobomimicConfig(algorithm="bc_transformer", chunk=_TEN_STEPS), training=_ROBOMIMIC
    ),
    # Images, words and numbers: small enough to learn on a laptop.
    "vla_tiny": Preset(policy=_VLA_TINY, training=_SMALL | {"batch_size": 64, "steps": 4000}),
    # The same for `push_t` with two goals: it also reads the block's corners, which 32 px do not show in detail.
    "vla_push_t": Preset(
        policy=_VLA_PUSH_T, training=_FAST | {"batch_size": 64, "steps": 12_000, "precision": "fp32"}
    ),
    # Diffusion Policy, arXiv 2303.04137 and its released configurations, low-dimensional observations.
    "diffusion_unet_published": Preset(
        policy=DiffusionConfig(
            chunk=ChunkConfig(observation_steps=2, horizon=16, execute=8, start=-1),
            trunk=UNetConfig(channels=(256, 512, 1024), kernel=5, groups=8, step_width=256),
            sampler=DDPM(steps=100),
        ),
        training={
            "batch_size": 256,
            "learning_rate": 1e-4,
            "betas": (0.95, 0.999),
            "weight_decay": 1e-6,
            "warmup_steps": 500,
            "clip_norm": None,
        },
    ),
    "diffusion_transformer_published": Preset(
        policy=DiffusionConfig(
            chunk=ChunkConfig(observation_steps=2, horizon=10, execute=8, start=-1),
            trunk=TransformerConfig(width=256, layers=8, heads=4, attention_dropout=0.3),
            sampler=DDPM(steps=100),
        ),
        training={
            "batch_size": 256,
            "learning_rate": 1e-4,
            "betas": (0.9, 0.95),
            "weight_decay": 1e-3,
            "decay_matrices_only": True,
            "warmup_steps": 1000,
            "clip_norm": None,
        },
    ),
}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ConfigError: for an unknown name, with the nearest valid one.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]
