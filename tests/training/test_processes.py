"""The laws of the training loop across processes and signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_training import toy_config, toy_train

from sensorimotor.training.checkpoint import read_checkpoint
from sensorimotor.training.metrics import read_metrics

PROGRAM = str(Path(__file__).with_name("toy_training.py"))
PATIENCE_S = 120


def rows(folder: Path) -> list[dict[str, float]]:
    times = ("seconds", "updates_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in read_metrics(folder)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, PROGRAM, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not read_metrics(folder):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the training process wrote no row: {process.communicate()[1]}")
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_well_and_it_can_go_on(tmp_path: Path, number: int) -> None:
    config = {"steps": 200, "checkpoint_every": 1000, "evaluate_every": 1000}
    process = started(tmp_path / "run", "--pause", "0.01", "--config", json.dumps(config))
    wait_for_rows(tmp_path / "run", process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    outcome = json.loads(output)
    assert outcome["stopped"]
    step = read_checkpoint(tmp_path / "run" / "checkpoints" / "last").json("training/state.json")["step"]
    assert 0 < step == outcome["steps"] < 200
    toy_train(tmp_path / "run", toy_config(**config), resume=True)
    toy_train(tmp_path / "whole", toy_config(**config))
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_second_signal_does_not_wait_for_the_step(tmp_path: Path) -> None:
    process = started(tmp_path, "--pause", "0.5", "--config", json.dumps({"steps": 10_000, "log_every": 1}))
    wait_for_rows(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)  # two signals at the same instant would count as one
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGTERM


def test_two_processes_equal_one_that_accumulates(tmp_path: Path) -> None:
    config = {"steps": 12, "log_every": 2, "evaluate_every": 4}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    # Only the last process asks to stop, after update 5: both must stop at the next row.
    program = [PROGRAM, str(tmp_path / "two"), "--config", json.dumps(config), "--stop-at", "5"]
    done = subprocess.run(
        [sys.executable, *torchrun, "--master-port", str(free_port()), *program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    one = toy_config(**config, accumulate=2)
    toy_train(tmp_path / "one", one)
    alone = [row for row in rows(tmp_path / "one") if row["step"] <= 6]
    assert [row["step"] for row in rows(tmp_path / "two")] == [row["step"] for row in alone]
    for together, expected in zip(rows(tmp_path / "two"), alone, strict=True):
        assert together == pytest.approx(expected, rel=1e-5)
    # One process takes over what two began, and ends where it would have ended alone.
    outcome, model = toy_train(tmp_path / "two", one, resume=True)
    assert outcome.steps == 12
    expected = read_checkpoint(tmp_path / "one" / "checkpoints" / "last").tensors("model.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
