"""Checkpoints: folders that are whole or absent, with a manifest of checksums written last. No pickle.

- `model.safetensors`: the raw weights
- `ema.safetensors`: the averaged weights, if an average is kept
- `training/`: what resuming needs, `optimizer.safetensors` and `state.json`
- whatever else the writers put there (a policy: `config.yaml`, `spec.json`, `normalizer.safetensors`)
- `manifest.json`: size and SHA-256 of every file above; files it does not name are ignored
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from ..data.errors import CheckpointError
from ..data.files import atomic_folder, check_replaceable, recover_folder

MANIFEST = "manifest.json"
MODEL = "model.safetensors"
EMA = "ema.safetensors"
_FORMAT = 1
_REMEDY = "copy the checkpoint again from where it was made, or use another one"


@dataclass(frozen=True)
class Source:
    """Where something was loaded from.

    Attributes:
        folder: of the checkpoint.
        checksum: SHA-256 of its manifest, which holds those of all its files.
        ema: whether the averaged weights were taken, where there are some.
    """

    folder: Path
    checksum: str
    ema: bool = True


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        folder: where it lies.
        files: relative name -> {size, sha256}.
    """

    folder: Path
    files: Mapping[str, Mapping[str, Any]]

    def path(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            CheckpointError: if the manifest names no such file.
        """
        if name not in self.files:
            raise CheckpointError(
                f"{self.folder} holds no {name!r}; it holds {', '.join(sorted(self.files))}"
            )
        return self.folder / name

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return json.loads(self.path(name).read_text())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of its safetensors files, on the CPU."""
        return load_file(self.path(name))

    def source(self, *, ema: bool = True) -> Source:
        """What names it in other files."""
        return Source(self.folder, checksum(self.folder), ema)

    @property
    def weights(self) -> str:
        """Name of the weights to use a model with: the averaged ones where there are some."""
        return EMA if EMA in self.files else MODEL


def save_checkpoint(target: Path, *writers: Callable[[Path], None]) -> None:
    """Write a checkpoint that replaces `target` whole, or leaves it as it was.

    Args:
        target: folder of the checkpoint.
        writers: called in turn with a temporary folder; each writes some of the files.

    Raises:
        CheckpointError: if the disk is full or cannot be written; an earlier checkpoint at `target` is intact.
        DataError: if `target` holds something else than a checkpoint.
    """
    check_replaceable(target, MANIFEST)
    try:
        sweep(target)
        with atomic_folder(target) as folder:
            for write in writers:
                write(folder)
            names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
            files = {name: _fingerprint(folder / name) for name in names}
            (folder / MANIFEST).write_text(json.dumps({"format": _FORMAT, "files": files}, indent=2))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot save the checkpoint {target}: {error}. {_free(target)}; an earlier checkpoint there is intact. "
            "Free some space or choose another folder, then resume"
        ) from error


def checksum(folder: Path) -> str:
    """SHA-256 of a checkpoint's manifest; its files are not looked at."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def read_checkpoint(folder: Path | str) -> Checkpoint:
    """Open a checkpoint after checking every file against the manifest.

    Raises:
        CheckpointError: naming the file that is absent, cut short or altered, and what to do.
    """
    folder = Path(folder)
    if not folder.exists():
        recover_folder(folder)
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {folder}; give a folder that holds {MANIFEST}")
    files = _read_manifest(folder)
    for name, expected in files.items():
        _check_file(folder / name, expected)
    return Checkpoint(folder, files)


def keep_copy(checkpoint: Path, step: int, keep: int) -> None:
    """Keep a numbered copy beside a checkpoint, and only the newest `keep` of those."""
    if keep == 0:
        return
    target = checkpoint.with_name(f"step_{step:09d}")
    try:
        for left in target.parent.glob(".step_*.partial"):
            shutil.rmtree(left)  # of a killed process
        with atomic_folder(target) as folder:
            shutil.copytree(checkpoint, folder, copy_function=_link_or_copy, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise CheckpointError(
            f"cannot keep a copy of {checkpoint}: {error}. {_free(checkpoint)}; lower `keep` or free some space"
        ) from error
    for old in sorted(checkpoint.parent.glob("step_*"))[:-keep]:
        shutil.rmtree(old)


def sweep(target: Path) -> None:
    """Undo what a killed save left behind: put the previous folder back, drop unfinished ones."""
    recover_folder(target)
    for left in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers; tied ones once."""
    save_model(model, str(path))


def load_weights(model: nn.Module, checkpoint: Checkpoint, name: str = MODEL) -> None:
    """Copy the weights of a checkpoint into a model, all of them or none missing.

    Raises:
        CheckpointError: if names or shapes differ.
    """
    try:
        load_model(model, checkpoint.path(name))
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint.path(name)} does not fit the model {type(model).__name__}; build the model from the "
            f"checkpoint's own configuration. {error}"
        ) from error


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)  # files of a checkpoint are never changed in place
    except OSError:
        shutil.copyfile(source, target)


def _free(target: Path) -> str:
    existing = next(p for p in (target, *target.parents) if p.exists())
    return f"{shutil.disk_usage(existing).free / 1e6:.0f} MB are free at {existing}"


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {MANIFEST}, so it is not a whole checkpoint: a copy was cut short, or it is something "
            f"else; {_REMEDY}"
        )
    try:
        content = json.loads(path.read_text())
        version, files = content["format"], content["files"]
        sane = all(isinstance(f["size"], int) and isinstance(f["sha256"], str) for f in files.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not readable ({error!r}); {_REMEDY}") from error
    if version != _FORMAT or not sane:
        raise CheckpointError(
            f"{path} has format {version!r}; this version reads format {_FORMAT}; {_REMEDY}"
        )
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CheckpointError(
                f"{path} names {name!r}, outside the checkpoint; do not trust it, and {_REMEDY}"
            )
    return files


def _check_file(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is absent, but the manifest names it; {_REMEDY}")
    size = path.stat().st_size
    if size != expected["size"]:
        raise CheckpointError(f"{path} has {size} bytes instead of {expected['size']}; {_REMEDY}")
    if _fingerprint(path)["sha256"] != expected["sha256"]:
        raise CheckpointError(f"{path} does not match its SHA-256, so its content was altered; {_REMEDY}")
