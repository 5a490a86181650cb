"""Training windows over episodes: index arithmetic for a whole batch at once, no Python loop per item.

Window i has its current step at `index[i]`. Observations are the O steps up to and including it; the chunk is H
actions starting `spec.start` steps from it. Steps outside the episode repeat its first or last step (edge padding),
and `mask` says which actions are real.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .episodes import Episodes
from .errors import DataError
from .spec import Spec, check_connection


@dataclass(frozen=True)
class Batch:
    """B windows.

    Attributes:
        observation: key -> (B, O, *shape), in the dtype of the data; of text, a list of the B present strings.
        action: (B, H, A), physical units.
        mask: (B, H) bool, False where an action repeats an edge.
    """

    observation: dict[str, Any]
    action: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        observation = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in self.observation.items()
        }
        return Batch(
            observation, self.action.to(device, non_blocking=True), self.mask.to(device, non_blocking=True)
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which an accelerator copies without waiting."""
        observation = {
            key: value.pin_memory() if isinstance(value, Tensor) else value
            for key, value in self.observation.items()
        }
        return Batch(observation, self.action.pin_memory(), self.mask.pin_memory())

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Windows:
    """Every window of a dataset, under a policy's window lengths.

    One window per step of every episode whose chunk holds at least one real action from now on.
    """

    episodes: Episodes
    spec: Spec
    first: NDArray[np.int64] = field(init=False, repr=False)  # (N,) first step of the episode of each step
    last: NDArray[np.int64] = field(init=False, repr=False)  # (N,) its last step

    def __post_init__(self) -> None:
        check_connection(self.spec, self.episodes.spec, user_name="policy", provider_name="dataset")
        lengths = self.episodes.lengths
        object.__setattr__(self, "first", np.repeat(self.episodes.starts, lengths))
        object.__setattr__(self, "last", np.repeat(self.episodes.ends - 1, lengths))

    def __len__(self) -> int:
        """Number of windows: one per recorded step."""
        return self.episodes.steps

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The windows whose current steps are `index` (B,)."""
        index = np.asarray(index, dtype=np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise DataError(f"window index must lie in [0, {len(self)}), got {index.min()}..{index.max()}")
        spec, now = self.spec, index[:, None]
        first, last = self.first[now], self.last[now]
        seen = np.maximum(now + np.arange(1 - spec.observation_steps, 1), first)
        wanted = now + np.arange(spec.start, spec.start + spec.horizon)
        rows = np.clip(wanted, first, last)
        observation: dict[str, Any] = {}
        for key, described in spec.observation.items():
            array = self.episodes.observation[key]
            observation[key] = array[index].tolist() if described.is_text else torch.from_numpy(array[seen])
        return Batch(
            observation,
            torch.from_numpy(self.episodes.action[rows]),
            torch.from_numpy(rows == wanted),
        )


def split_episodes(
    episodes: Episodes, *, held_out: float, generator: np.random.Generator
) -> tuple[Episodes, Episodes | None]:
    """Split into training and held-out episodes at random; whole episodes only, never windows of one."""
    if not 0 <= held_out < 1:
        raise DataError(f"held_out must lie in [0, 1), got {held_out}")
    count = round(held_out * len(episodes))
    if count == 0:
        return episodes, None
    if count >= len(episodes):
        raise DataError(f"held_out {held_out} of {len(episodes)} episodes leaves none to train on; lower it")
    order = generator.permutation(len(episodes))
    return episodes.select(np.sort(order[count:])), episodes.select(np.sort(order[:count]))
