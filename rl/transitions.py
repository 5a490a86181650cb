"""Transitions of recorded episodes, for critics of one action or of n: a `BatchSource` of the training loop.

A critic of n actions learns from the n rewards they brought, `sum_{i<n} gamma^i r_{t+i}`, and from what it thinks of the
observation n steps later, weighed with `gamma^n`. Nothing counts that comes after a step with mask 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.episodes import Episodes
from ..data.spec import Spec
from ..data.windows import Windows
from .labels import Labels, LabelsConfig, Numbers, label


@dataclass(frozen=True)
class Transition:
    """B transitions.

    Attributes:
        observation: key -> (B, O, *shape), in the dtype of the data; of text, a list of the B present strings.
        action: (B, n, A), physical units.
        reward: (B,) of the n steps together, discounted.
        discount: (B,) what the value of `later` is multiplied by; 0 where nothing comes after.
        returns: (B,) Monte-Carlo return of the episode from here on.
        later: the observation n steps later; the last of the episode where it is shorter.
    """

    observation: dict[str, Any]
    action: Tensor
    reward: Tensor
    discount: Tensor
    returns: Tensor
    later: dict[str, Any]

    def to(self, device: torch.device | str) -> "Transition":
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Transition":
        """The same batch in page-locked memory, from which an accelerator copies without waiting."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Transition":
        """The same batch with every tensor changed; texts stay as they are."""

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: changed(part) for key, part in value.items()}
            return change(value) if isinstance(value, Tensor) else value

        return Transition(**{part.name: changed(getattr(self, part.name)) for part in fields(self)})

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Transitions:
    """Every transition of a dataset, one per recorded step, under a critic's spec.

    What lies past the end of an episode repeats its last step, as in `Windows`; an episode that was only cut off goes on
    with its last reward, as in `labels`.
    """

    episodes: Episodes
    spec: Spec
    config: LabelsConfig
    windows: Windows = field(init=False, repr=False)
    labels: Labels = field(init=False, repr=False)
    reward: Numbers = field(init=False, repr=False)  # (N,) of n steps
    discount: Numbers = field(init=False, repr=False)  # (N,)

    def __post_init__(self) -> None:
        windows, labels = Windows(self.episodes, self.spec), label(self.episodes, self.config)
        reward, discount = np.zeros(len(windows)), np.ones(len(windows))
        for i in range(self.spec.horizon):
            rows = np.minimum(np.arange(len(windows)) + i, windows.last)
            reward += discount * labels.reward[rows]
            discount *= self.config.discount * labels.mask[rows]
        for name, value in (
            ("windows", windows),
            ("labels", labels),
            ("reward", reward),
            ("discount", discount),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of transitions: one per recorded step."""
        return len(self.windows)

    def batch(self, index: NDArray[np.int64]) -> Transition:
        """The transitions that begin at the steps `index` (B,)."""
        now = self.windows.batch(index)
        after = np.minimum(np.asarray(index, dtype=np.int64) + self.spec.horizon, self.windows.last[index])

        def chosen(values: Numbers) -> Tensor:
            return torch.from_numpy(values[index].astype(np.float32))

        return Transition(
            now.observation,
            now.action,
            chosen(self.reward),
            chosen(self.discount),
            chosen(self.labels.returns),
            self.windows.batch(after).observation,
        )


def with_texts(
    batch: Transition, key: str, texts: list[str], wrong: Tensor, config: LabelsConfig
) -> Transition:
    """The batch told other texts (B), of which those that are `wrong` (B,) will never be carried out.

    A transition under a wrong text has reward -1 at every step and goes on for ever: its return is -1 / (1 - gamma).
    """
    steps = batch.action.shape[1]
    gamma = config.discount
    return replace(
        batch,
        observation={**batch.observation, key: texts},
        later={**batch.later, key: texts},
        reward=torch.where(wrong, config.worst * (1 - gamma**steps), batch.reward),
        discount=torch.where(wrong, gamma**steps, batch.discount),
        returns=torch.where(wrong, config.worst, batch.returns),
    )
