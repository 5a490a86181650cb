"""Print a benchmark's table and keep it as JSON; `docs/results.py` turns the JSON into prose.

Every script in this folder ends with one call of `record`.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PLACES = ("--runs", "--data")  # where things lie on one machine says nothing to another


def machine() -> str:
    """Processor, cores and, if there is one, the GPU."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}"


def command(name: str, words: Sequence[str]) -> str:
    """What to type for the same result: the script and its options, places left out."""
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in _PLACES and word not in _PLACES
    ]
    return " ".join(["python", f"benchmarks/{name}.py", *kept])


def record(
    name: str,
    *,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    headline: str = "",
    notes: Sequence[str] = (),
    data: Any = None,
) -> None:
    """Print the table and write `results/<name>.json`.

    Args:
        name: file name without suffix.
        title: one line saying what is compared.
        columns: column heads.
        rows: cells as they should be read, intervals and units included.
        headline: the one number a reader looks for.
        notes: what a reader must know to judge the numbers.
        data: raw numbers behind the table.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption="\n".join(notes), caption_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console = Console(width=max(120, Console().width))
    console.print(table)
    if headline:
        console.print(headline)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "title": title,
        "command": command(name, sys.argv[1:]),
        "machine": machine(),
        "date": date.today().isoformat(),
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "headline": headline,
        "notes": list(notes),
        "data": data,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
