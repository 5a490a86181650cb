"""Fixtures shared by every room's tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")  # before anything imports mujoco


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SENSORIMOTOR_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set SENSORIMOTOR_SHARED to the folder that holds them")
    return folder
