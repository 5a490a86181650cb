"""Opening files that others wrote: every failure names the file, and every oddity is kept as a note."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, SensorimotorError


def require(module: str, purpose: str) -> Any:
    """Import an optional package, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f'{purpose} needs the package {module!r} ({error}); install it with pip install "sensorimotor[formats]"'
        ) from error


@contextlib.contextmanager
def reading(path: Path, what: str, *failures: type[Exception]) -> Iterator[None]:
    """Name the file in every error; turn a library's `failures` into a `DataError`."""
    if not path.exists():
        raise DataError(f"there is nothing at {path}; give the path of a {what}")
    try:
        yield
    except SensorimotorError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (OSError, EOFError, KeyError, ValueError, *failures) as error:
        raise DataError(
            f"{path} is not a readable {what} ({type(error).__name__}: {error}); "
            "it may be cut short: copy or record it again"
        ) from error


def note(metadata: dict[str, Any], message: str) -> None:
    """Warn now, and keep the warning with the data."""
    warnings.warn(message, stacklevel=3)
    metadata["notes"] = [*metadata.get("notes", []), message]
