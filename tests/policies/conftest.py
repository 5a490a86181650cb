"""Small recordings."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch

from sensorimotor.composition.composed import ComposedPolicy, compose
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors only lose time on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mixed() -> Callable[..., ComposedPolicy]:
    """The convex combination of two members, the first with this weight."""
    return lambda members, weight: compose(members, (weight, 1 - weight))


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
