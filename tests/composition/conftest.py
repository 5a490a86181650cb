"""Pairs of members whose every answer is known."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors only lose time on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws without a generator is the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def pair(gaussian: Callable) -> list[Any]:
    """N(-1, 0.25) and N(2, 1), whose compositions are known in closed form."""
    return [gaussian(-1.0, 0.25), gaussian(2.0, 1.0)]


@pytest.fixture(scope="session")
def seen() -> dict[str, torch.Tensor]:
    """One observation."""
    return {"state": torch.zeros(1, 1, 1)}
