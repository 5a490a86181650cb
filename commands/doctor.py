"""`sensorimotor doctor`: is this machine ready, and if not, what to type."""

import importlib.metadata
import platform
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ..configs.verbs import DoctorConfig
from . import checks
from .console import Screen

_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}


def run(config: DoctorConfig, screen: Screen) -> int:
    """Print the table; 1 if something has to be repaired."""
    findings = examine(Path(config.folder))
    screen.table(_table(findings))
    failed = [f for f in findings if f.status == "fail"]
    warned = [f for f in findings if f.status == "warn"]
    if failed:
        screen.say(f"To repair: {', '.join(f.what for f in failed)}.", style="bold red")
        return 1
    screen.say("Ready." + (f" {len(warned)} to look at." if warned else ""), style="green")
    return 0


def examine(folder: Path) -> list[checks.Finding]:
    """All findings, in the order they are shown."""
    requirements = importlib.metadata.requires("sensorimotor") or []
    version = checks.installed_version("sensorimotor") or "not installed"
    return [
        checks.Finding("sensorimotor", "ok", f"{version} on {platform.system()} {platform.machine()}"),
        checks.check_python(),
        *checks.check_packages(requirements),
        *checks.check_clashes(),
        *checks.check_extras(requirements),
        checks.check_rendering(),
        checks.check_video(),
        *checks.check_compute(),
        *checks.check_folder(folder),
    ]


def _table(findings: list[checks.Finding]) -> Table:
    table = Table(
        title="sensorimotor doctor", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("what", no_wrap=True)
    table.add_column("")
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for finding in findings:
        mark = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(Text(finding.what), mark, Text(finding.found), Text(finding.advice))  # Text: no markup
    return table
