"""Where the time of a composition goes: calls, rows and seconds per member and stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """What one stage of one member cost so far.

    Attributes:
        calls: how often it was asked.
        rows: rows of all calls together.
        seconds: of all calls together. On an accelerator this is the time to launch the work, unless the clock waits
            for it.
    """

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """Accounts by (member, stage); stages are `encode`, `noise` and `velocity`.

    Attributes:
        clock: seconds; give one that synchronises to time an accelerator.
        entries: the accounts.
    """

    clock: Callable[[], float] = time.perf_counter
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)

    @contextmanager
    def stage(self, member: str, stage: str, rows: int = 0) -> Iterator[None]:
        """Account for what happens inside."""
        began = self.clock()
        try:
            yield
        finally:
            self.add(began, member, stage=stage, rows=rows)

    def add(self, began: float, *members: str, stage: str, rows: int) -> None:
        """Account for what began then and is done; members asked together share the time evenly."""
        seconds = (self.clock() - began) / len(members)
        for member in members:
            entry = self.entries.setdefault((member, stage), Entry())
            entry.calls += 1
            entry.rows += rows
            entry.seconds += seconds

    def calls(self, member: str) -> int:
        """How often a member was asked for noise or velocity."""
        return sum(
            e.calls for (name, stage), e in self.entries.items() if name == member and stage != "encode"
        )

    def reset(self) -> None:
        """Begin at nothing."""
        self.entries.clear()

    def rows(self) -> list[dict[str, Any]]:
        """One row per member and stage: calls, rows, milliseconds per call and in total."""
        return [
            {
                "member": member,
                "stage": stage,
                "calls": e.calls,
                "rows": e.rows,
                "ms_per_call": 1e3 * e.seconds / max(1, e.calls),
                "ms": 1e3 * e.seconds,
            }
            for (member, stage), e in self.entries.items()
        ]
