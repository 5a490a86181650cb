"""What the loop asks of a model and of its data."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Movable(Protocol):
    """A batch: anything that can be put on a device. With `pin_memory()`, it is copied there without waiting."""

    def to(self, device: torch.device, /) -> Any:
        """The same batch on another device."""
        ...


class BatchSource(Protocol):
    """Data by number; `data.windows.Windows` is one. The same numbers give the same batch."""

    def __len__(self) -> int:
        """Number of windows."""
        ...

    def batch(self, index: NDArray[np.int64], /) -> Movable:
        """The windows with these numbers."""
        ...


class Trainable(Protocol):
    """An `nn.Module` whose call is its training loss, so that hooks of distribution see every forward pass."""

    def __call__(self, batch: Any, generator: torch.Generator) -> Tensor:
        """The scalar loss of a batch, all noise drawn from `generator`."""
        ...
