"""Small recordings that every format has to carry, how two of them are compared, and a disk that is soon full."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.spec import Field, Spec


def _episodes(lengths: tuple[int, ...] = (3, 1, 5), *, seed: int = 0, full: bool = True) -> Episodes:
    rng = np.random.default_rng(seed)
    steps = sum(lengths)
    spec = Spec(
        observation={
            "state": Field(
                shape=(3,), unit="rad", names=("a", "b", "c"), low=(-1.0,) * 3, high=(1.0, 2.0, np.inf)
            ),
            "environment": Field(shape=(), dtype="float64", unit="m"),
            "grid": Field(shape=(2, 3), dtype="int16"),
            "image.top": Field(shape=(4, 5, 3), dtype="uint8"),
        },
        action=Field(shape=(2,), dtype="float32", unit="m", names=("x", "y")),
        control_hz=12.5,
    )
    observation: dict[str, Any] = {
        "state": rng.standard_normal((steps, 3)).astype(np.float32),
        "environment": rng.standard_normal(steps) * 1e-300,
        "grid": rng.integers(-9, 9, (steps, 2, 3), dtype=np.int16),
        "image.top": rng.integers(0, 256, (steps, 4, 5, 3), dtype=np.uint8),
    }
    observation["state"][0] = (-0.0, 1e-45, 3.4e38)  # negative zero, denormal, nearly the largest
    common = {
        "spec": spec,
        "observation": observation,
        "action": rng.standard_normal((steps, 2)).astype(np.float32),
        "ends": np.cumsum(lengths),
    }
    if not full:
        return Episodes(**common)
    return Episodes(
        **common,
        reward=rng.standard_normal(steps),
        terminated=np.isin(np.arange(steps), np.cumsum(lengths)[::2] - 1),
        success=np.arange(len(lengths)) % 2 == 0,
        extra={
            "states": rng.standard_normal((steps, 4)),
            "column": np.arange(steps, dtype=np.int32)[:, None],
            "flag": rng.random(steps) < 0.5,
        },
        metadata={"task": "push", "env_args": {"env_name": "push", "type": 2, "env_kwargs": {"gain": 0.1}}},
    )


@pytest.fixture
def make_episodes() -> Callable[..., Episodes]:
    """Episodes with every kind of array; `full=False` leaves out all that may be absent."""
    return _episodes


def _assert_same(a: Episodes, b: Episodes) -> None:
    assert a.spec == b.spec
    assert list(a.spec.observation) == list(b.spec.observation)
    assert a.metadata == b.metadata
    assert list(a.extra) == list(b.extra)
    named = {"action": (a.action, b.action), "ends": (a.ends, b.ends)}
    named |= {key: (a.observation[key], b.observation[key]) for key in a.observation}
    named |= {key: (a.extra[key], b.extra[key]) for key in a.extra}
    for name in ("reward", "terminated", "success"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            named[name] = (left, right)
    for name, (left, right) in named.items():
        assert (left.dtype, left.shape) == (right.dtype, right.shape), name
        assert np.ascontiguousarray(left).tobytes() == np.ascontiguousarray(right).tobytes(), name


@pytest.fixture
def assert_same() -> Callable[[Episodes, Episodes], None]:
    """Equal to the last bit, types and shapes included."""
    return _assert_same


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    mount, disk = shutil.which("mount"), tmp_path / "disk"
    disk.mkdir()
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting a small file system failed: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)
