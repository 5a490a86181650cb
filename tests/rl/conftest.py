"""Small recordings whose right values are known."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec

GOALS = ("to the left", "to the right")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors only lose time on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wander(
    *,
    steps: Sequence[int] = (12, 9, 7),
    told: bool = False,
    side: int = 0,
    success: Sequence[bool] | None = None,
    reward: bool = False,
    seed: int = 0,
) -> Episodes:
    """Random walks in the plane; with `told` an instruction per episode, with `side` a camera."""
    generator = np.random.default_rng(seed)
    total = sum(steps)
    state = generator.uniform(-1, 1, (total, 2)).astype(np.float32)
    action = (state + generator.uniform(-0.2, 0.2, (total, 2))).astype(np.float32)
    fields = {"state": Field(shape=(2,)), "environment": Field(shape=(4,))}
    observation: dict[str, np.ndarray] = {
        "state": state,
        "environment": generator.normal(size=(total, 4)).astype(np.float32),
    }
    if told:
        fields["instruction"] = Field(shape=(), dtype="str")
        observation["instruction"] = np.repeat([GOALS[i % 2] for i in range(len(steps))], steps)
    if side:
        fields["image.top"] = Field(shape=(side, side, 3), dtype="uint8")
        observation["image.top"] = generator.integers(0, 256, (total, side, side, 3), dtype=np.uint8)
    return Episodes(
        spec=Spec(observation=fields, action=Field(shape=(2,)), control_hz=10),
        observation=observation,
        action=action,
        ends=np.cumsum(steps),
        success=None if success is None else np.array(success),
        reward=generator.normal(size=total).astype(np.float32) if reward else None,
    )


@pytest.fixture(scope="session")
def make_episodes() -> Callable[..., Episodes]:
    return wander
