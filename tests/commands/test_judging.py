"""The table of an evaluation."""

import io

import numpy as np
from rich.console import Console

from sensorimotor.commands.judging import table
from sensorimotor.sim.evaluation import Evaluation


def result(name: str, successes: int, *, latency: float) -> Evaluation:
    success = np.arange(50) < successes
    return Evaluation(
        task="PushTWorlds",
        policy=name,
        seeds=np.arange(100_000, 100_050),
        success=success,
        reward=np.where(success, 1.0, 0.25),
        coverage=np.where(success, 0.95, 0.25),
        length=np.full(50, 100),
        solved_at=np.where(success, 90, 0),
        latency_ms=np.full(30, latency),
        seconds=1.0,
    )


def test_the_widest_numbers_fit_eighty_columns() -> None:
    text = io.StringIO()
    rows = [result("flow transformer", 50, latency=1234.5), result("nearest neighbour", 25, latency=0.0123)]
    Console(file=text, width=80).print(table(rows))
    lines = text.getvalue().splitlines()
    assert "…" not in text.getvalue()
    assert len(lines) == 3
    assert "100.0 % [92.9, 100.0]" in lines[1]
    assert "0.625 [0.517, 0.733]" in lines[2]
    assert lines[1].rstrip().endswith("1234 ms")
    assert lines[2].rstrip().endswith("0.01 ms")
