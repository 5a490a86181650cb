"""What is left behind when training meets a number that is not finite: the batch, its seeds, and a way on."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..data.errors import TrainingError
from ..data.files import atomic_folder
from .meter import Fault
from .order import Microbatch
from .source import BatchSource


def tensors_of(batch: Any, name: str = "batch") -> dict[str, Tensor]:
    """Every tensor inside a batch made of dataclasses, mappings and sequences, named by its place."""
    if isinstance(batch, Tensor):
        return {name: batch.detach().cpu().contiguous()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        batch = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if isinstance(batch, Mapping):
        pairs = [(str(key), value) for key, value in batch.items()]
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        pairs = [(str(i), value) for i, value in enumerate(batch)]
    else:
        return {}
    return {k: t for key, value in pairs for k, t in tensors_of(value, f"{name}/{key}").items()}


def dump_batch(
    folder: Path, fault: Fault, slices: Sequence[Microbatch], data: BatchSource
) -> OSError | SafetensorError | None:
    """Write the global batch of a faulty update: its tensors, and the seeds that repeat it exactly.

    A disk that cannot be written is returned, not raised: the fault itself is what has to be reported.
    """
    tensors: dict[str, Tensor] = {}
    for number, piece in enumerate(slices):
        # Cloned, because tensors of one batch may share memory, which safetensors refuses.
        found = tensors_of(data.batch(piece.index), f"slice_{number}")
        tensors |= {name: tensor.clone() for name, tensor in found.items()}
    described = [
        {"windows": p.index.tolist(), "noise_seed": p.noise_seed, "layer_seed": p.layer_seed} for p in slices
    ]
    note = {
        "step": fault.step,
        "loss": str(fault.loss),
        "gradient_norm": str(fault.gradient_norm),
        "bad_inputs": sorted(
            n for n, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()
        ),
        "slices": described,
    }
    try:
        with atomic_folder(folder) as temporary:
            save_file(tensors, temporary / "batch.safetensors")
            (temporary / "info.json").write_text(json.dumps(note, indent=2))
    except (OSError, SafetensorError) as error:
        return error
    return None


def fault_error(fault: Fault, dump: Path | Exception, last: Path, saved_step: int | None) -> TrainingError:
    """The error that stops training, with the way to go on.

    Args:
        fault: what happened.
        dump: where its batch was written, or why it could not be.
        last: the checkpoint to resume from.
        saved_step: its update number; None if there is no checkpoint yet.
    """
    batch = (
        f"Its batch and seeds are in {dump} (`bad_inputs` in info.json names inputs that are not finite)"
        if isinstance(dump, Path)
        else f"Its batch could not be written: {dump}"
    )
    way_on = (
        f"The checkpoint {last} of update {saved_step} is intact: resume from it, with a lower learning_rate or "
        "clip_norm if the inputs are sound"
        if saved_step is not None
        else "No checkpoint had been saved yet: start again, with a lower learning_rate if the inputs are sound"
    )
    return TrainingError(
        f"update {fault.step} is not finite: loss {fault.loss}, gradient norm {fault.gradient_norm}. "
        f"{batch}. {way_on}"
    )
