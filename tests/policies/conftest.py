"""Policies whose every answer is known in closed form, and small recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import FlowEuler


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors only lose time on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Rows:
    """A condition that knows only how many rows it has."""

    values: Tensor

    def repeat(self, samples: int) -> "Rows":
        return Rows(self.values.repeat_interleave(samples, dim=0))


class Gaussian(GenerativePolicy):
    """The exact policy for actions that are N(mean, variance), whatever is observed; variance 0 is one point."""

    def __init__(self, mean: float, variance: float, *, horizon: int = 1) -> None:
        spec = Spec(
            observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10, horizon=horizon
        )
        super().__init__(spec)
        self.normalizer = Normalizer({"action": (torch.zeros(1), torch.ones(1))})
        self.sampler = FlowEuler()
        self.mean, self.variance = mean, variance
        self.encoded = 0

    def encode(self, observation: Mapping[str, Tensor]) -> Rows:
        self.encoded += 1
        return Rows(observation["state"])

    def _clean_and_noise(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s.double() if s.ndim == 0 else s.double().view(-1, 1, 1)
        offset = x - (1 - s) * self.mean
        variance = (1 - s) ** 2 * self.variance + s**2
        return self.mean + (1 - s) * self.variance * offset / variance, s * offset / variance

    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        return self._clean_and_noise(x, s)[1].to(x)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        action, noise = self._clean_and_noise(x, s)
        return (noise - action).to(x)


class Mixed(Gaussian):
    """The convex combination of two members' answers."""

    def __init__(self, members: Sequence[GenerativePolicy], weight: float) -> None:
        super().__init__(0.0, 1.0)
        self.members, self.weight = members, weight

    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        a, b = (member.predict_noise(x, s, condition) for member in self.members)
        return self.weight * a + (1 - self.weight) * b

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        a, b = (member.predict_velocity(x, s, condition) for member in self.members)
        return self.weight * a + (1 - self.weight) * b


@pytest.fixture(scope="session")
def gaussian() -> Callable[..., Gaussian]:
    return Gaussian


@pytest.fixture(scope="session")
def mixed() -> Callable[..., Mixed]:
    return Mixed


def record(
    *,
    steps: Sequence[int] = (12, 9),
    widths: Mapping[str, int] | None = None,
    cameras: Mapping[str, int] | None = None,
    actions: int = 2,
    seed: int = 0,
) -> Episodes:
    """Random episodes; actions are random offsets from the leading elements of `state`, cameras square noise."""
    widths = widths or {"state": 2, "environment": 3}
    generator = np.random.default_rng(seed)
    total = sum(steps)
    observation: dict[str, np.ndarray] = {
        key: generator.uniform(-2, 3, size=(total, width)).astype(np.float32) for key, width in widths.items()
    }
    action = generator.normal(size=(total, actions)).astype(np.float32)
    if widths.get("state", 0) >= actions:
        action += observation["state"][:, :actions]
    fields = {key: Field(shape=(width,), unit="m") for key, width in widths.items()}
    for key, side in (cameras or {}).items():
        observation[key] = generator.integers(0, 256, (total, side, side, 3), dtype=np.uint8)
        fields[key] = Field(shape=(side, side, 3), dtype="uint8")
    spec = Spec(
        observation=fields,
        action=Field(shape=(actions,), unit="m"),
        control_hz=10,
    )
    return Episodes(spec=spec, observation=observation, action=action, ends=np.cumsum(steps))


@pytest.fixture(scope="session")
def make_episodes() -> Callable[..., Episodes]:
    return record


@pytest.fixture
def episodes() -> Episodes:
    return record()
