"""Which windows, and which random numbers, go into each update: arithmetic on (seed, update), no state.

The data of a run is one endless stream: the permutation of epoch 0, then of epoch 1, and so on, each drawn from
(seed, epoch). Global batch k is the k-th piece of it, so the position of the loader is the number of updates made.
A global batch is cut into W x A contiguous slices, one per process and accumulated microbatch, and all random
numbers of a slice come from (seed, update, slice): how the slices are spread over processes changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ..data.errors import ConfigError


class Stream(IntEnum):
    """Independent families of random numbers of one run."""

    ORDER = 0
    TRAINING = 1
    HELD_OUT = 2


def seed_sequence(seed: int, stream: Stream, *place: int) -> np.random.SeedSequence:
    """The entropy of one place of one stream; different places are independent."""
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *place))


@dataclass(frozen=True)
class Microbatch:
    """One slice of a global batch.

    Attributes:
        index: window numbers of the slice.
        noise_seed: seed of the generator handed to the model.
        layer_seed: seed of torch's own generators, which dropout draws from.
    """

    index: NDArray[np.int64]
    noise_seed: int
    layer_seed: int


def microbatch(index: NDArray[np.int64], seed: int, stream: Stream, *place: int) -> Microbatch:
    """Attach the random numbers of a place to its windows."""
    noise, layer = seed_sequence(seed, stream, *place).generate_state(2, np.uint64).tolist()
    return Microbatch(index, noise >> 1, layer >> 1)  # 63 bits: torch takes signed seeds


class Order:
    """The slices of every global batch of a run."""

    def __init__(self, length: int, batch_size: int, slices: int, seed: int) -> None:
        """Take the number of windows, the global batch size, and the number of slices of a batch (W x A)."""
        if length < 1:
            raise ConfigError(
                "there are no windows to train on; the dataset is empty, or shorter than a window"
            )
        if batch_size % slices:
            raise ConfigError(
                f"batch_size must be a multiple of processes x accumulate, got {batch_size} and {slices}; "
                "every microbatch has the same size"
            )
        self.length, self.batch_size, self.slices, self.seed = length, batch_size, slices, seed
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def slice(self, step: int, number: int) -> Microbatch:
        """Slice `number` of the global batch of one update."""
        size = self.batch_size // self.slices
        index = self._take(step * self.batch_size + number * size, size)
        return microbatch(index, self.seed, Stream.TRAINING, step, number)

    def epoch(self, step: int) -> float:
        """Passes over the data after `step` updates."""
        return step * self.batch_size / self.length

    def _take(self, start: int, count: int) -> NDArray[np.int64]:
        epoch, offset = divmod(start, self.length)
        if offset + count <= self.length:
            return self._permutation(epoch)[offset : offset + count]
        pieces = [self._permutation(epoch)[offset:]]
        missing = count - len(pieces[0])
        while missing > 0:
            epoch += 1
            pieces.append(self._permutation(epoch)[:missing])
            missing -= len(pieces[-1])
        return np.concatenate(pieces)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            self._epochs = {e: p for e, p in self._epochs.items() if e == epoch - 1}  # a batch may span two
            generator = np.random.default_rng(seed_sequence(self.seed, Stream.ORDER, epoch))
            self._epochs[epoch] = generator.permutation(self.length)
        return self._epochs[epoch]


def held_out_slices(length: int, limit: int, size: int, seed: int) -> Iterator[Microbatch]:
    """The same windows with the same random numbers at every evaluation.

    Args:
        length: number of held-out windows.
        limit: at most this many are used.
        size: windows per slice; the last slice may be smaller.
        seed: of the run.
    """
    generator = np.random.default_rng(seed_sequence(seed, Stream.HELD_OUT))
    chosen = np.sort(generator.permutation(length)[:limit])
    for number, start in enumerate(range(0, len(chosen), size)):
        yield microbatch(chosen[start : start + size], seed, Stream.HELD_OUT, number)
