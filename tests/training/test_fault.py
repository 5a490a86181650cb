"""A faulty batch can be looked at and repeated."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_training import ToyData

from sensorimotor.training.fault import dump_batch, fault_error, tensors_of
from sensorimotor.training.meter import Fault
from sensorimotor.training.order import Order


@dataclass
class Nested:
    observation: dict[str, Tensor]
    pair: tuple[Tensor, Tensor]
    words: list[str]


def test_tensors_are_found_wherever_they_are() -> None:
    batch = Nested({"state": torch.ones(2)}, (torch.zeros(1), torch.ones(3)), ["lift"])
    found = tensors_of(batch)
    assert sorted(found) == ["batch/observation/state", "batch/pair/0", "batch/pair/1"]
    assert torch.equal(found["batch/pair/1"], torch.ones(3))


def test_the_dump_names_bad_inputs_and_repeats_the_batch(tmp_path: Path) -> None:
    data, order = ToyData(20, bad=(4,)), Order(20, 20, 2, seed=0)
    slices = [order.slice(0, i) for i in range(2)]
    dump_batch(tmp_path / "nan_batch", Fault(0, float("nan"), 1.0), slices, data)
    info = json.loads((tmp_path / "nan_batch" / "info.json").read_text())
    tensors = load_file(tmp_path / "nan_batch" / "batch.safetensors")
    bad = next(i for i, piece in enumerate(slices) if 4 in piece.index)
    assert info["bad_inputs"] == [f"slice_{bad}/x"]
    assert info["loss"] == "nan"
    for i, piece in enumerate(slices):
        assert info["slices"][i]["windows"] == piece.index.tolist()
        assert info["slices"][i]["noise_seed"] == piece.noise_seed
        assert torch.equal(tensors[f"slice_{i}/y"], data.y[torch.from_numpy(piece.index)])


def test_the_error_says_how_to_go_on() -> None:
    fault = Fault(7, float("nan"), float("inf"))
    saved = str(fault_error(fault, Path("dump"), Path("last"), 5))
    assert "seeds are in dump" in saved
    assert "update 7" in saved
    assert "last of update 5 is intact: resume" in saved
    assert "start again" in str(fault_error(fault, Path("dump"), Path("last"), None))


def test_a_dump_that_cannot_be_written_does_not_hide_the_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    order, fault = Order(20, 4, 1, seed=0), Fault(7, float("nan"), 1.0)
    problem = dump_batch(tmp_path / "file" / "nan_batch", fault, [order.slice(7, 0)], ToyData(20))
    assert isinstance(problem, OSError)
    message = str(fault_error(fault, problem, Path("last"), 5))
    assert "update 7 is not finite" in message
    assert "batch could not be written: [Errno" in message
