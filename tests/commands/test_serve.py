"""`sensorimotor serve`, and `eval` of what it serves."""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import sensorimotor
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.real.server import PolicyServer, ServerConfig
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t import PushTConfig
from sensorimotor.sim.tasks import make_task


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def healthy(port: int) -> bool:
    """Wait until a server answers; False if none does for long."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                return answer.read() == b"OK\n"
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    return False


def test_serve_answers_until_a_signal_comes(command, trained: Path, monkeypatch) -> None:
    monkeypatch.setenv("SENSORIMOTOR_TOKEN", "secret")
    port, found = free_port(), []

    def visit() -> None:
        try:
            if healthy(port):
                with sensorimotor.load(f"ws://127.0.0.1:{port}") as remote:  # pyright: ignore[reportGeneralTypeIssues]
                    found.append(remote.name)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    done = command("serve", f"checkpoint={trained}", f"port={port}")
    visitor.join()
    assert done.code == 0, done.err
    assert found == ["flow mlp"]
    assert done.out.splitlines() == [f"serving flow mlp at ws://127.0.0.1:{port}", "stopped"]
    assert "secret" not in done.out + done.err


def test_eval_of_a_served_policy_is_eval_of_the_policy(command, recordings, tmp_path: Path) -> None:
    policy = make_policy(RegressorConfig(trunk=MLPConfig(width=16, depth=1)), recordings).eval()
    config = PushTConfig(max_steps=20, threads=1)
    task = make_task(config, worlds=3)
    local = evaluate(policy, task, episodes=3).to_dict()
    task.close()
    with PolicyServer(policy, ServerConfig(port=0), name="regressor mlp") as server:
        words = ("task=push_t", "task.max_steps=20", "task.threads=1", "episodes=3", "worlds=3", "video=0")
        done = command("eval", f"checkpoint={server.url}", *words, "baselines=[]", f"out={tmp_path}")
        missing = command("eval", f"checkpoint={server.url}", *words)
    assert done.code == 0, done.err
    assert "regressor mlp, served" in done.out
    assert missing.code == 1
    assert "give one, as in out=runs/served" in missing.err
    served = json.loads((tmp_path / "evaluation.json").read_text())["policy"]
    assert served["per_episode"] == local["per_episode"]


def test_other_machines_need_a_token(command, trained: Path, monkeypatch) -> None:
    monkeypatch.delenv("SENSORIMOTOR_TOKEN", raising=False)
    done = command("serve", f"checkpoint={trained}", "host=0.0.0.0", "port=0")
    assert done.code == 1
    assert "needs a token: set SENSORIMOTOR_TOKEN" in done.err


@pytest.mark.parametrize(
    "words", [("serve", "checkpoint=runs/x"), ("eval", "checkpoint=ws://127.0.0.1:1", "out=x")]
)
def test_what_is_missing_is_said(command, monkeypatch, words: tuple[str, ...]) -> None:
    monkeypatch.setitem(sys.modules, "websockets", None)
    done = command(*words)
    assert done.code == 1
    assert "pip install 'sensorimotor[serve]'" in done.err


def test_serve_takes_a_saved_composition(command, trained: Path, tmp_path: Path) -> None:
    policy = sensorimotor.compose([sensorimotor.load(trained)])
    sensorimotor.save(policy, tmp_path / "made")
    port, found = free_port(), []

    def visit() -> None:
        try:
            if healthy(port):
                with sensorimotor.load(f"ws://127.0.0.1:{port}") as remote:  # pyright: ignore[reportGeneralTypeIssues]
                    found.append((remote.name, remote.spec))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=visit)
    visitor.start()
    done = command("serve", f"checkpoint={tmp_path / 'made'}", f"port={port}")
    visitor.join()
    assert done.code == 0, done.err
    assert found == [("composition", policy.spec)]
