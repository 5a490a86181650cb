"""The processes of one run: which device this one has, how many there are, and what they agree on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .config import Device


@dataclass(frozen=True)
class Workers:
    """This process among the processes of a run.

    Attributes:
        device: where this process computes.
        rank: its number, 0 to count - 1; process 0 writes the files.
        count: number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def reads_at_once(self) -> bool:
        """Whether a number can be read at no cost: not from an accelerator, nor from another process."""
        return self.count == 1 and self.device.type == "cpu"

    def mean(self, x: Tensor) -> Tensor:
        """Average over processes."""
        return self.sum(x) / self.count if self.count > 1 else x

    def sum(self, x: Tensor) -> Tensor:
        """Sum over processes."""
        if self.count > 1:
            torch.distributed.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            torch.distributed.barrier()

    @contextlib.contextmanager
    def local(self, network: nn.Module) -> Iterator[None]:
        """Keep the gradients of the block to this process; the next backward pass shares them."""
        if isinstance(network, DistributedDataParallel):
            with network.no_sync():
                yield
        else:
            yield


@contextlib.contextmanager
def join_workers(device: Device, model: nn.Module) -> Iterator[tuple[Workers, nn.Module]]:
    """Join the processes of this run, with the model on this process's device and wrapped for gradient exchange.

    accelerate reads from the environment whether `torchrun` or `accelerate launch` started several processes.
    """
    from accelerate import Accelerator  # here, because importing it takes longer than importing this package
    from accelerate.state import AcceleratorState

    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")  # autocast is the loop's own
    workers = Workers(accelerator.device, accelerator.process_index, accelerator.num_processes)
    network = accelerator.prepare_model(model) if workers.count > 1 else model.to(workers.device)
    try:
        yield workers, network
    finally:
        if workers.count == 1:
            # accelerate remembers the first device for the life of the process; the next run may want another.
            AcceleratorState._reset_state(reset_partial_state=True)
