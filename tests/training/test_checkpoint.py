"""Checkpoints are whole or absent, and say what is wrong with them."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sensorimotor.data.errors import CheckpointError, DataError
from sensorimotor.training.checkpoint import (
    keep_copy,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    save_weights,
)


def network(value: float = 1.0) -> nn.Linear:
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.weight, value)
    return layer


def save(target: Path, value: float = 1.0) -> None:
    def describe(folder: Path) -> None:
        (folder / "spec.json").write_text('{"rate": 10}')

    save_checkpoint(
        target, describe, lambda folder: save_weights(network(value), folder / "model.safetensors")
    )


def saved_value(target: Path) -> float:
    model = network(0.0)
    load_weights(model, read_checkpoint(target))
    return float(model.weight[0, 0].detach())


def run_program(*arguments: str | Path) -> list[dict]:
    program = Path(__file__).with_name("crash_saves.py")
    command = [sys.executable, str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save(tmp_path / "last", 2.5)
    checkpoint = read_checkpoint(tmp_path / "last")
    assert sorted(checkpoint.files) == ["model.safetensors", "spec.json"]
    assert checkpoint.json("spec.json") == {"rate": 10}
    assert saved_value(tmp_path / "last") == 2.5
    assert checkpoint.weights == "model.safetensors"


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    first, second = tied(), tied()
    save_checkpoint(tmp_path / "last", lambda folder: save_weights(first, folder / "model.safetensors"))
    load_weights(second, read_checkpoint(tmp_path / "last"))
    assert second[1].weight is second[0].weight
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def _remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1')


def _empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1, "files": {"spec.json": 3}}')


def _future_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 2, "files": {}}')


def _escaping_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../outside"] = {"size": 0, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _alter_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_remove_manifest, r"has no manifest\.json"),
        (_break_manifest, r"manifest\.json is not readable"),
        (_empty_manifest, r"manifest\.json is not readable"),
        (_future_manifest, "format 2"),
        (_escaping_manifest, r"'\.\./outside', outside the checkpoint"),
        (_remove_weights, r"model\.safetensors is absent"),
        (_cut_weights, r"model\.safetensors has \d+ bytes instead of \d+"),
        (_alter_weights, r"model\.safetensors does not match its SHA-256"),
    ],
)
def test_harm_is_found_and_named(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    save(tmp_path / "last")
    harm(tmp_path / "last")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(tmp_path / "last")
    assert "use another one" in str(caught.value)


def test_a_file_the_manifest_does_not_name_is_ignored(tmp_path: Path) -> None:
    save(tmp_path / "last")
    (tmp_path / "last" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds no 'notes\.txt'; it holds model\.safetensors"):
        read_checkpoint(tmp_path / "last").path("notes.txt")


def test_an_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        read_checkpoint(tmp_path / "nowhere")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "last")
    checkpoint = read_checkpoint(tmp_path / "last")
    for other in (nn.Linear(5, 3), nn.Linear(4, 3, bias=False), nn.Sequential(nn.Linear(4, 3))):
        with pytest.raises(CheckpointError, match="does not fit the model"):
            load_weights(other, checkpoint)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds other files"):
        save(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_writer_that_fails_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "last", 1.0)

    def no_space(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match=r"No space left on device.*MB are free.*intact"):
        save_checkpoint(tmp_path / "last", no_space)
    assert saved_value(tmp_path / "last") == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_a_save_that_runs_out_of_space_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    (trial,) = run_program("full", tmp_path / "last")
    assert "cannot save the checkpoint" in trial["message"]
    assert trial["value"] == 1.0
    assert trial["left"] == []


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    trials = run_program("kills", tmp_path / "last")
    values = [trial["value"] for trial in trials]
    assert set(values) == {1.0, 2.0}
    assert values == sorted(values)  # from some moment on it is the new one
    assert [trial["killed"] for trial in trials] == [True] * (len(trials) - 1) + [False]
    assert any(trial["left"] for trial in trials)  # some kills do leave unfinished folders behind
    assert trials[-1]["left"] == []  # and the next save clears them away


def test_only_the_newest_copies_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path / "last", step)
        (tmp_path / f".step_{step:09d}.1.partial").mkdir()  # as a killed process leaves it
        keep_copy(tmp_path / "last", step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "step_000000010", "step_000000015"]
    assert saved_value(tmp_path / "step_000000010") == 10.0  # still whole after `last` was replaced
