"""Episodes played with given weights, remembered in a file, so that none is ever played twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.errors import DataError

Array = NDArray[np.float64]
Weights = tuple[float, ...]
Play = Callable[[Weights, Sequence[int]], Array]
"""Weights and seeds to one value per episode, success (0 or 1) or a score; all episodes of a call may run together."""

_DIGITS = 9


class Trials:
    """Values of episodes by weights and seed.

    Attributes:
        spent: episodes played by this object; those read from the file are not counted.
    """

    def __init__(
        self, play: Play, file: Path | str | None = None, *, identity: Mapping[str, Any] | None = None
    ) -> None:
        """Take up what a file holds of earlier calls, if there is one.

        Args:
            play: plays episodes.
            file: keeps them; nothing is kept if None.
            identity: plain values that say what is played; a file of anything else is refused.

        Raises:
            DataError: if the file is damaged, naming the line, or of another identity, naming what differs.
        """
        self._play, self.file = play, None if file is None else Path(file)
        self._known: dict[Weights, dict[int, float]] = {}
        self._identity = None if identity is None else json.loads(json.dumps(identity))
        self.spent = 0
        if self.file is not None and self.file.exists():
            self._read(self.file)
        elif self._identity is not None:
            self._append({"identity": self._identity})

    def values(self, weights: Sequence[float], seeds: Sequence[int]) -> Array:
        """(n,) values of these episodes; those that are not known yet are played.

        Raises:
            DataError: if playing gives anything but one finite value per episode.
        """
        key = tuple(round(float(w), _DIGITS) for w in weights)
        known = self._known.setdefault(key, {})
        missing = [seed for seed in seeds if seed not in known]
        if missing:
            played = np.asarray(self._play(key, missing), dtype=np.float64)
            if played.shape != (len(missing),) or not np.isfinite(played).all():
                raise DataError(
                    f"{len(missing)} episodes with weights {key} gave {played.shape} values, "
                    f"{int((~np.isfinite(played)).sum())} of them not finite; one finite value each is needed"
                )
            self._write(key, missing, played)
            known.update(zip(missing, played.tolist(), strict=True))
            self.spent += len(missing)
        return np.array([known[seed] for seed in seeds])

    def remember(self, weights: Sequence[float], seeds: Sequence[int], values: Array) -> None:
        """Take up episodes that were played elsewhere; those that are known already stay as they are."""
        key = tuple(round(float(w), _DIGITS) for w in weights)
        known = self._known.setdefault(key, {})
        new = [(seed, value) for seed, value in zip(seeds, values.tolist(), strict=True) if seed not in known]
        if new:
            self._write(key, [seed for seed, _ in new], np.array([value for _, value in new]))
            known.update(new)

    def known(self, weights: Sequence[float]) -> dict[int, float]:
        """Value by seed of everything played with these weights."""
        return dict(self._known.get(tuple(round(float(w), _DIGITS) for w in weights), {}))

    def _write(self, key: Weights, seeds: Sequence[int], values: Array) -> None:
        self._append({"weights": key, "seeds": list(seeds), "values": values.tolist()})

    def _append(self, row: Mapping[str, Any]) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # One line per call: a cut last line loses that call only.
        self._append_text(self.file, json.dumps(row) + "\n")

    @staticmethod
    def _append_text(file: Path, text: str) -> None:
        with file.open("a") as stream:
            stream.write(text)

    def _read(self, file: Path) -> None:
        text = file.read_text()
        lines, stored = text.split("\n"), None
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                row: dict[str, Any] = json.loads(line)
                if "identity" in row:
                    stored = dict(row["identity"])
                    continue
                found = dict(zip(row["seeds"], row["values"], strict=True))
                if not np.isfinite(list(found.values())).all():
                    raise ValueError("values that are not finite")
                self._known.setdefault(tuple(row["weights"]), {}).update(found)
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):  # without a line feed: cut while it was written
                    text = "".join(f"{kept}\n" for kept in lines[:-1])
                    file.write_text(text)
                    break
                raise DataError(
                    f"{file}, line {number} is damaged ({error}); remove that line, and its episodes are played again"
                ) from error
        if text and not text.endswith("\n"):
            self._append_text(file, "\n")
        if stored is not None:
            self._compare(stored, file)
        elif self._identity is not None:
            if self._known:
                raise DataError(
                    f"{file} does not say what its episodes are of; choose another file or folder, so that they are not "
                    "taken for others"
                )
            self._append({"identity": self._identity})

    def _compare(self, stored: Mapping[str, Any], file: Path) -> None:
        """Raise unless the file's episodes are of what is played now."""
        wanted = self._identity
        if wanted is None:
            return
        for key in [*stored, *wanted]:
            if stored.get(key) != wanted.get(key):
                raise DataError(
                    f"{file} holds episodes of another search: {key} was {stored.get(key)!r} there and is "
                    f"{wanted.get(key)!r} here; choose another file or folder"
                )
