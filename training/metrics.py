"""Numbers of a run on disk: one JSON row per line in metrics.jsonl, and TensorBoard beside it."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ..data.errors import TrainingError
from ..data.files import atomic_file

FILE = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that was cut short by a crash is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


class Metrics:
    """Appends rows; each has left this process before the next update starts.

    A resumed run drops the rows after the step it resumes from, so that its file becomes the one that the
    uninterrupted run would have written.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        """Continue the metrics of a folder from `step`; 0 starts anew."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(folder) if step and row["step"] <= step]
        with atomic_file(folder / FILE) as temporary:
            temporary.write_text("".join(_line(row) for row in kept))
        self._file = (folder / FILE).open("a")
        self._board = _open_board(folder / "tensorboard", step) if tensorboard else None

    def write(self, row: Mapping[str, float | None]) -> None:
        """Write one row; a number that is not finite becomes null, which JSON can hold.

        Raises:
            TrainingError: if the disk is full.
        """
        row = {k: v if v is not None and math.isfinite(v) else None for k, v in row.items()}
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"cannot write {self._file.name}: {error}; free some space, then resume from the last checkpoint"
            ) from error
        if self._board is not None:
            for key, value in row.items():
                if key != "step" and value is not None:
                    self._board.add_scalar(key, value, global_step=row["step"])

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # a row that could not be written has already been reported
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _open_board(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # here, because it takes a while to import

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
