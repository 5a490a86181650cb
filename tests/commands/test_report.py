"""The page: complete in itself, true to the run, whatever is missing."""

import json
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sensorimotor.commands.page import render
from sensorimotor.commands.report import write_report
from sensorimotor.commands.runs import Run, read_run
from sensorimotor.data.errors import DataError
from sensorimotor.data.files import write_json

NOW = datetime(2026, 11, 22, 12, 30)


def evaluation(name: str, *, successes: int, episodes: int = 4) -> dict[str, Any]:
    share = successes / episodes
    return {
        "task": "PushTWorlds",
        "policy": name,
        "episodes": episodes,
        "success": {"value": share, "low": share / 2, "high": (1 + share) / 2, "count": episodes},
        "score": {"value": 0.5, "low": 0.25, "high": 0.75, "count": episodes},
        "latency_ms": {"median": 2.0, "p95": 3.0, "all": [1.0, 2.0, 3.0]},
        "seconds": 1.0,
        "videos": [],
        "per_episode": [
            {
                "seed": 100_000 + i,
                "success": i < successes,
                "score": 0.5,
                "coverage": 0.5,
                "length": 9,
                "solved_at": 8 if i < successes else None,
            }
            for i in range(episodes)
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with everything in it, some of it hostile."""
    run = tmp_path / "run"
    (run / "videos").mkdir(parents=True)
    (run / "videos" / "episode_100001.mp4").write_bytes(b"not really a video")
    (run / "config.yaml").write_text(
        "name: '<b>push_t</b>'\npolicy: {kind: FlowConfig, trunk: {kind: MLPConfig}}\n"
    )
    (run / "environment.json").write_text(
        json.dumps({"git_revision": "0123456789abcdef", "packages": {"torch": "2.13"}})
    )
    rows = [{"step": s, "loss": 1 / s, "learning_rate": 0.1, "gradient_norm": None} for s in range(1, 6)]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 5, "held_out_loss": 0.3}])
    )
    own = evaluation("flow mlp", successes=3) | {"videos": ["videos/episode_100001.mp4"]}
    others = [evaluation("hold still", successes=0), evaluation("nearest", successes=1)]
    write_json(
        run / "evaluation.json",
        {
            "when": "today",
            "task_name": "push_t",
            "control_hz": 10.0,
            "execute": 8,
            "policy": own,
            "baselines": others,
        },
    )
    write_json(
        run / "outcome.json",
        {"seconds": 61.0, "parameters": 1234, "data": {"episodes": 9, "steps": 100, "recorded": 9}},
    )
    return run


def page_of(folder: Path) -> str:
    return render(read_run(folder), created="now", version="1")


class Addresses(HTMLParser):
    """Collects whatever a browser would fetch, and the tags that stand open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "poster", "data", "action"}
        ]
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_fetches_nothing(folder: Path) -> None:
    page = page_of(folder)
    parser = Addresses()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.found) == 1
    assert all(address.startswith("data:") for address in parser.found)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", page)


def test_the_page_says_what_the_run_was(folder: Path) -> None:
    page = page_of(folder)
    for words in (
        "flow mlp",
        "75 %",
        "[38, 88]",
        "of 4 episodes",
        "0.500",
        "2.0 ms",
        "1 min 01 s",
        "1.23k",
        "0123456789",
    ):
        assert words in page, words
    assert "start 100001: solved in 8 steps" in page
    assert "Not solved: 100003." in page
    assert "kind: MLPConfig" in page


def test_baselines_follow_from_best_to_worst(folder: Path) -> None:
    page = page_of(folder)
    places = [page.index(f"<td>{name}</td>") for name in ("flow mlp", "nearest", "hold still")]
    assert places == sorted(places)


def test_names_from_files_are_text_and_never_markup(folder: Path) -> None:
    page = page_of(folder)
    assert "<b>push_t</b>" not in page
    assert "&lt;b&gt;push_t&lt;/b&gt;" in page


@pytest.mark.parametrize(
    "absent",
    [
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "evaluation.json",
        "outcome.json",
        "videos/episode_100001.mp4",
    ],
)
def test_whatever_is_absent_leaves_a_page_about_the_rest(folder: Path, absent: str) -> None:
    (folder / absent).unlink()
    parser = Addresses()
    parser.feed(page_of(folder))
    assert parser.open == []


def test_a_run_that_was_not_evaluated_says_how_to(folder: Path) -> None:
    (folder / "evaluation.json").unlink()
    assert f"sensorimotor eval checkpoint={folder}" in page_of(folder)


def test_one_episode_has_no_interval_of_the_mean_and_still_a_page(folder: Path) -> None:
    own = evaluation("flow", successes=1, episodes=1)
    own["score"] |= {"low": float("-inf"), "high": float("inf")}
    write_json(folder / "evaluation.json", {"policy": own, "baselines": []})
    assert "no interval from one episode" in page_of(folder)


@pytest.mark.parametrize("name", ["evaluation.json", "outcome.json", "environment.json", "config.yaml"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    with pytest.raises(DataError, match=name):
        read_run(folder)


def test_a_folder_that_is_no_run_is_refused_with_the_runs_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match=str(folder)):
        read_run(folder.with_name("rum"))
    with pytest.raises(DataError, match="the folder that `train` wrote"):
        read_run(folder.parent)


def test_the_command_writes_beside_the_run_or_where_it_is_told(command, folder: Path, tmp_path: Path) -> None:
    assert command("report", f"run={folder}").code == 0
    assert command("report", f"run={folder}", f"path={tmp_path / 'x.html'}").code == 0
    first, second = (folder / "report.html").read_text(), (tmp_path / "x.html").read_text()
    assert first.startswith("<!doctype html>")
    assert len(first) == len(second)
    assert command("report", f"run={tmp_path / 'absent'}").code == 1


def test_the_same_run_at_the_same_time_gives_the_same_page(folder: Path) -> None:
    pages = [write_report(folder, folder.parent / name, now=NOW).read_text() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_an_empty_run_is_a_page_too() -> None:
    assert "Not evaluated yet" in render(Run(Path("x")), created="now", version="1")
