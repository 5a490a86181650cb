"""A run folder as the commands after training see it.

config.yaml          the resolved configuration
environment.json     code revision, versions, machine
metrics.jsonl        one row per line
checkpoints/         last, best
evaluation.json      written by `eval` and at the end of `train`
videos/              MP4 files of evaluated episodes
selection.json       of `compose`: how weights were searched; weight_curve.png shows it
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data.errors import DataError
from ..training.metrics import read_metrics

EVALUATION = "evaluation.json"
VIDEOS = "videos"
SELECTION, CURVE = "selection.json", "weight_curve.png"


@dataclass(frozen=True)
class Run:
    """What a run folder holds; whatever is absent is empty.

    Attributes:
        folder: where it lies.
        config: the resolved configuration.
        environment: as `training/run.py` wrote it.
        metrics: rows of metrics.jsonl.
        evaluation: the content of evaluation.json.
        outcome: the content of outcome.json.
        selection: the content of selection.json, where weights of a composition were searched.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trains_critic(self) -> bool:
        """Whether it trained a critic; one that only uses a critic names its folder."""
        return isinstance(self.config.get("critic"), Mapping)


def read_run(folder: Path) -> Run:
    """Read what is there.

    Raises:
        DataError: if the folder is absent, no run, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"no run folder at {folder}{_others(folder)}")
    run = Run(
        folder,
        config=read_yaml(folder / "config.yaml"),
        environment=_read_json(folder / "environment.json"),
        metrics=read_metrics(folder),
        evaluation=_read_json(folder / EVALUATION),
        outcome=_read_json(folder / "outcome.json"),
        selection=_read_json(folder / SELECTION),
    )
    if not (run.config or run.metrics or run.evaluation):
        raise DataError(
            f"{folder} holds no config.yaml, metrics.jsonl or {EVALUATION}; give the folder that `train` wrote"
        )
    return run


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or an empty one if there is no file."""
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    return content if isinstance(content, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; write it again") from error
    return content if isinstance(content, dict) else {}


def _others(folder: Path) -> str:
    """A hint that names runs that do exist beside the one asked for."""
    if not folder.parent.is_dir():
        return f"; {folder.parent} does not exist either"
    runs = sorted(
        (p for p in folder.parent.iterdir() if (p / "config.yaml").exists()), key=lambda p: p.stat().st_mtime
    )
    return (
        f"; there are {', '.join(str(p) for p in runs[-4:])}"
        if runs
        else "; train one with `sensorimotor train`"
    )
