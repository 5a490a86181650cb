"""The loss on windows that training never sees."""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from .noise import Noise
from .offers import held_out_error
from .order import held_out_slices
from .source import BatchSource
from .workers import Workers


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, then every module of it back in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()  # not inference mode: an energy model takes gradients inside its own loss
def held_out_loss(
    model: nn.Module,
    source: BatchSource,
    workers: Workers,
    *,
    limit: int,
    size: int,
    seed: int,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> float:
    """Mean loss over the same windows with the same noise at every call, or what the model offers in its place.

    Args:
        model: called as `model(batch, generator)`.
        source: held-out data.
        workers: the slices are shared out among them.
        limit: at most this many windows.
        size: windows per forward pass.
        seed: of the run.
        autocast: precision of the forward pass.
    """
    noise, judged = Noise(workers.device), held_out_error(model)
    pieces = list(held_out_slices(len(source), limit, size, seed))
    weighted = torch.zeros(len(pieces), dtype=torch.float32, device=workers.device)
    with evaluation_mode(model):
        for number in range(workers.rank, len(pieces), workers.count):
            piece = pieces[number]
            noise.seed(piece)
            batch = source.batch(piece.index).to(workers.device)
            with autocast():
                weighted[number] = judged(batch, noise.generator) * len(piece.index)
    return math.fsum(workers.sum(weighted).tolist()) / sum(len(piece.index) for piece in pieces)
