"""The run folder: what was trained, with which code, on which machine."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..data.errors import TrainingError
from ..data.files import atomic_file

_PACKAGES = (
    "sensorimotor",
    "torch",
    "numpy",
    "accelerate",
    "diffusers",
    "gymnasium",
    "mujoco",
    "safetensors",
)
_SOURCE = Path(__file__).resolve().parents[1]


def make_folder(folder: Path) -> None:
    """Make the run folder.

    Raises:
        TrainingError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the run folder {folder}: {error}; choose another one") from error


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration of a run as config.yaml."""
    import yaml  # here, because only commands write configurations

    with atomic_file(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))


def write_environment(folder: Path, device: torch.device) -> None:
    """Write environment.json: code revision, versions, processor, accelerator, threads."""
    with atomic_file(folder / "environment.json") as temporary:
        temporary.write_text(json.dumps(environment(device), indent=2))


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know to repeat a run."""
    return {
        "git_revision": git_revision(_SOURCE),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def git_revision(source: Path) -> str | None:
    """The commit of a checkout, with `+changes` if files differ from it; None outside a checkout."""
    if not (source / ".git").exists():
        return None  # an installed copy; a repository around it is not ours
    try:
        revision = _git(source, "rev-parse", "HEAD")
        changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+changes" if changes else "")


def _git(source: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(source), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
