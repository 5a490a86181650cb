"""Random numbers of a microbatch, and the global state of torch that training borrows."""

import contextlib
from collections.abc import Iterator

import torch

from .order import Microbatch


class Noise:
    """The generator handed to the model, and torch's own generators, which dropout draws from.

    All are seeded afresh for every microbatch, so no generator state has to be saved or kept in step.
    """

    def __init__(self, device: torch.device) -> None:
        """Draw on the device of the model."""
        self.generator = torch.Generator(device)
        self._on_gpu = device.type == "cuda"

    def seed(self, piece: Microbatch) -> None:
        """Start the random numbers of a microbatch."""
        self.generator.manual_seed(piece.noise_seed)
        torch.default_generator.manual_seed(piece.layer_seed)
        if self._on_gpu:
            torch.cuda.manual_seed(piece.layer_seed)


@contextlib.contextmanager
def borrowed_globals(threads: int | None, device: torch.device) -> Iterator[None]:
    """Give torch's global generators and thread count back as they were found."""
    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
