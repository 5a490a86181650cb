"""A tiny policy of every kind, and observations for it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.vla.config import VLAConfig
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.text import BytesConfig, WordsConfig

KEYS = ("state", "image.top", "instruction")
WORDS = WordsConfig(words=("push", "the", "t", "to", "left", "right", "goal"))
SPEC = Spec(
    observation={
        "state": Field(shape=(2,)),
        "image.top": Field(shape=(32, 32, 3), dtype="uint8"),
        "instruction": Field(shape=(), dtype="str"),
    },
    action=Field(shape=(2,)),
    control_hz=10,
)
KINDS: dict[str, dict[str, Any]] = {
    "pi0": {"mask": "pi0", "state": "suffix", "fusion": "concat"},
    "pi05": {"mask": "pi0", "state": "text", "fusion": "adarms", "text": BytesConfig(length=120)},
    "smolvla": {"mask": "smolvla", "state": "prefix", "fusion": "concat"},
}


def config_of(kind: str, **changes: Any) -> VLAConfig:
    chunk = ChunkConfig(observation=KEYS, observation_steps=1, horizon=8, execute=4)
    base = replace(VLAConfig(chunk=chunk, text=WORDS), **KINDS[kind])
    if kind == "smolvla":
        base = replace(base, streams=replace(base.streams, joint_every=2, groups=2))
    return replace(base, **changes)


def make(config: VLAConfig, *, seed: int = 0, shake: float = 0.0) -> VLAPolicy:
    """A fresh policy; `shake` moves every weight, so that parts which start closed take part."""
    numbers = {"state": (torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.8]))}
    action = (torch.tensor([0.3, 0.4]), torch.tensor([2.0, 0.7]))
    policy = build_policy(
        config, config.chunk.apply(SPEC), Normalizer({**numbers, "action": action}), seed=seed
    )
    assert isinstance(policy, VLAPolicy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += shake * torch.randn(parameter.shape, generator=generator)
    return policy.eval()


def observe(rows: int = 2, *, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    texts = ["push the T to the left goal", "push right", "goal", "to the left"]
    return {
        "state": torch.randn(rows, 1, 2, generator=generator),
        "image.top": torch.randint(0, 256, (rows, 1, 32, 32, 3), generator=generator, dtype=torch.uint8),
        "instruction": [texts[i % len(texts)] for i in range(rows)],
    }


@pytest.fixture(scope="session")
def vla_config() -> Callable[..., VLAConfig]:
    return config_of


@pytest.fixture(scope="session")
def vla() -> Callable[..., VLAPolicy]:
    return lambda kind, *, seed=0, shake=0.1, **changes: make(
        config_of(kind, **changes), seed=seed, shake=shake
    )


@pytest.fixture(scope="session")
def vla_observation() -> Callable[..., dict[str, Any]]:
    return observe
