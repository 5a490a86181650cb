"""Files and folders that appear whole or not at all."""

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DataError

PICKLED = (".pth", ".pt", ".ckpt")  # how other projects' checkpoints end; they are pickles


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to disk, so that a rename inside it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes its place, on error it is removed.

    An existing `target` is first moved aside under a hidden name, then the new one takes its place. A crash between
    the two renames leaves no `target` for a moment: `recover_folder` puts the old one back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    temporary.mkdir()  # not mkdtemp: what takes the target's place should be as readable as any folder
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync_folder(path) if path.is_dir() else _sync_file(path)
        sync_folder(temporary)
        aside = target.with_name(f".{target.name}.previous")
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(target, aside)
        os.replace(temporary, target)
        sync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        recover_folder(target)
        raise


def recover_folder(target: Path) -> None:
    """Put back the previous version of a folder whose replacement was cut short."""
    aside = target.with_name(f".{target.name}.previous")
    if aside.exists() and not target.exists():
        os.replace(aside, target)


def check_replaceable(folder: Path, mark: str) -> None:
    """Raise unless `folder` is absent, empty, or holds `mark`, the file that tells it is ours to replace."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
        raise DataError(
            f"{folder} holds other files and would be replaced (it has no {mark}); choose a new folder"
        )


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it takes its place, on error it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: some writers choose the format, or add a suffix, by the name.
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield temporary
        _sync_file(temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write strict JSON, whole or not at all; numbers that are not finite become null."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The same plain values with null for NaN and infinities, which JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
