"""What rows of metrics say of a critic's health, in words and on the page."""

from pathlib import Path

from ..training.metrics import read_metrics
from . import charts
from .console import Screen
from .runs import Run

VALUES = {"q_data": "value of the data", "td_target": "its target", "mc_return": "its return"}
SHARES = {
    "q_return_correlation": "correlation of value and return",
    "bound_rate": "share of the actor's actions that the return bounds",
}


def say_health(folder: Path, screen: Screen) -> None:
    """Say what the newest row tells."""
    rows = [row for row in read_metrics(folder) if row.get("q_data") is not None]
    if not rows:
        return
    named = VALUES | SHARES
    said = [f"{name} {rows[-1][key]:.3g}" for key, name in named.items() if rows[-1].get(key) is not None]
    screen.say(f"health: {', '.join(said)}")


def health_section(run: Run) -> str:
    """How a critic's values stand against what they learn towards and what the data returned; empty for a policy."""
    if not run.trains_critic:
        return ""
    drawings = [
        charts.lines(
            [
                charts.Series(name, [row["step"] for row in rows], [row[key] for row in rows])
                for key, name in named.items()
                if (rows := [row for row in run.metrics if row.get(key) is not None])
            ],
            x_label="updates",
        )
        for named in (VALUES, SHARES)
    ]
    return (
        "<section><h2>Health</h2><p>A critic that leaves its target behind diverges; one that does not follow the "
        f"returns knows nothing.</p><div class='pair'>{''.join(f'<div>{d}</div>' for d in drawings)}</div></section>"
    )
