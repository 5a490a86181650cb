"""Named starting points for critics, with the published rates; a critic brings all of the training settings it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..policies.chunk import ChunkConfig
from ..policies.vla.text import WordsConfig
from .cal_ql import CalQLConfig
from .factory import CriticConfig
from .iql import IQLConfig


@dataclass(frozen=True, kw_only=True)
class CriticPreset:
    """A critic and how to train it.

    Attributes:
        critic: what to train.
        training: fields of `training.config.TrainingConfig`; everything that presets of policies set is set here too,
            so that it does not matter which policy a configuration names.
    """

    critic: CriticConfig
    training: Mapping[str, Any] = field(default_factory=dict)


# No average of the weights: a critic has target networks. Adam at 3e-4 for the critics and 1e-4 for the actor.
_TRAINING: Mapping[str, Any] = {
    "steps": 20_000,
    "batch_size": 256,
    "learning_rate": 3e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "decay_matrices_only": False,
    "warmup_steps": 500,
    "schedule": "constant",
    "minimum_ratio": 0.0,
    "clip_norm": None,
    "precision": "fp32",
    "ema": None,
    "threads": 1,
}
_CAL_QL, _IQL = CalQLConfig(octaves=4), IQLConfig(octaves=4)
_POINTS: Mapping[str, Any] = {"relative": "state", "points": ("environment",)}
_TOLD: Mapping[str, Any] = _POINTS | {
    "chunk": ChunkConfig(
        observation=("state", "environment", "instruction"), observation_steps=1, horizon=1, execute=1
    ),
    "text": WordsConfig(words=("push", "the", "t", "to", "left", "right", "goal")),
}

CRITICS: Mapping[str, CriticPreset] = {
    "cal_ql": CriticPreset(critic=_CAL_QL, training=_TRAINING),
    "iql": CriticPreset(critic=_IQL, training=_TRAINING),
    # Features of the policies `flow_points`: `state` begins with the position that actions command, `environment` is a
    # list of points of one body in the same space.
    "cal_ql_points": CriticPreset(critic=replace(_CAL_QL, **_POINTS), training=_TRAINING),
    "iql_points": CriticPreset(critic=replace(_IQL, **_POINTS), training=_TRAINING),
    # The same for `push_t` with two goals, one of which the instruction names; 10 % of the transitions under the other
    # one for IQL and none for Cal-QL, as published.
    "cal_ql_language": CriticPreset(critic=replace(_CAL_QL, **_TOLD), training=_TRAINING),
    "iql_language": CriticPreset(critic=replace(_IQL, **_TOLD, negatives=0.1), training=_TRAINING),
}
