"""One page about one run: plain HTML that needs nothing but itself.

Pictures and videos are embedded, charts are inline SVG, there are no scripts and no addresses of other files.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from . import charts
from .console import duration
from .health import health_section
from .names import kind_name, milliseconds
from .runs import CURVE, Run
from .style import CSS

_VIDEO_LIMIT = 12  # embedded; the rest stays in the run folder
_KINDS = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}


def render(run: Run, *, created: str, version: str) -> str:
    """The page as text.

    Args:
        run: what the run folder holds.
        created: when the page is written, as shown.
        version: of the package, for the last line.
    """
    sections = [
        _header(run, created),
        _tiles(run),
        _comparison(run),
        _selection(run),
        _videos(run),
        _side_by_side(_episodes(run), _latency(run)),
        _training(run),
        health_section(run),
        _environment(run),
        _config(run),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(_title(run))}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f"<footer>Written by sensorimotor {escape(version)} on {escape(created)}. "
        "This page is complete in itself and can be sent as one file.</footer>\n</main>\n</body>\n</html>\n"
    )


def _side_by_side(*sections: str) -> str:
    present = [section for section in sections if section]
    return f"<div class='sections'>{''.join(present)}</div>" if len(present) > 1 else "".join(present)


def _title(run: Run) -> str:
    name = run.config.get("name") or run.folder.resolve().name
    if "members" in run.config:
        return f"{name}: composition of {len(run.config['members'])} policies"
    if run.trains_critic:
        return f"{name}: {kind_name(run.config['critic']['kind'])} critic"
    if run.config.get("critic"):
        return f"{name}: best of {run.config['samples']} candidates"
    policy = run.config.get("policy", {})
    words = [kind_name(part["kind"]) for part in (policy, policy.get("trunk", {})) if "kind" in part]
    return f"{name}: {' '.join(words)} policy" if words else str(name)


def _header(run: Run, created: str) -> str:
    when = run.outcome.get("finished") or run.evaluation.get("when") or created
    commit = run.environment.get("git_revision") or ""
    words = [
        str(when),
        str(run.folder),
        f"code {commit[:10]}{'+' if '+' in commit else ''}" if commit else "",
    ]
    where = run.environment.get("gpu") or run.environment.get("cpu") or ""
    words.append(str(where))
    return (
        f"<header><h1>{escape(_title(run))}</h1><p>{escape(' · '.join(w for w in words if w))}</p></header>"
    )


def _tiles(run: Run) -> str:
    tiles = []
    own = run.evaluation.get("policy") or {}
    if own:
        success, score = own["success"], own["score"]
        tiles.append(
            _tile(
                "success",
                _percent(success["value"]),
                f"{_percents(success)} of {own['episodes']} episodes",
                main=True,
            )
        )
        tiles.append(_tile("score", f"{score['value']:.3f}", _decimals(score)))
        median, p95 = own["latency_ms"]["median"], own["latency_ms"]["p95"]
        if median is not None:
            tiles.append(_tile("latency", milliseconds(median), f"median; 95 % under {milliseconds(p95)}"))
    steps = max((row.get("step", 0) for row in run.metrics), default=0)
    if steps:
        seconds = run.outcome.get("seconds")
        tiles.append(
            _tile(
                "training", charts.number(steps), "updates" + (f" in {duration(seconds)}" if seconds else "")
            )
        )
    parameters = run.outcome.get("parameters")
    if parameters:
        tiles.append(_tile("network", charts.number(parameters), "parameters"))
    data = run.outcome.get("data", {})
    if data:
        mirrored = ", half of them mirrored" if data["episodes"] > data["recorded"] else ""
        tiles.append(
            _tile("data", str(data["episodes"]), f"episodes, {charts.number(data['steps'])} steps{mirrored}")
        )
    return f"<div class='tiles'>{''.join(tiles)}</div>" if tiles else ""


def _tile(what: str, value: str, note: str, *, main: bool = False) -> str:
    return (
        f"<div class='tile{' main' if main else ''}'><span class='what'>{escape(what)}</span>"
        f"<b>{escape(value)}</b><span>{escape(note)}</span></div>"
    )


def evaluated(run: Run) -> list[Mapping[str, Any]]:
    """The policy's evaluation first, then the baselines from best to worst."""
    own = run.evaluation.get("policy")
    if not own:
        return []
    return [own, *sorted(run.evaluation.get("baselines", []), key=_rank, reverse=True)]


def _rank(evaluation: Mapping[str, Any]) -> tuple[float, float]:
    return evaluation["success"]["value"], evaluation["score"]["value"]


def _comparison(run: Run) -> str:
    rows = evaluated(run)
    if not rows and run.trains_critic:
        return ""  # a critic acts only through a policy
    if not rows:
        return (
            "<section><h2>Evaluation</h2><p class='empty'>Not evaluated yet: "
            f"sensorimotor eval checkpoint={escape(str(run.folder))}</p></section>"
        )
    chart = charts.intervals(
        [
            charts.Row(
                r["policy"],
                r["success"]["value"],
                r["success"]["low"],
                r["success"]["high"],
                note=f"{_percent(r['success']['value'])}  {_percents(r['success'])}",
                highlight=i == 0,
            )
            for i, r in enumerate(rows)
        ],
        x_label="successful episodes, %",
    )
    cells = "".join(
        f"<tr{' class=own' if i == 0 else ''}><td>{escape(r['policy'])}</td>"
        f"<td class='n'>{r['score']['value']:.3f}</td><td class='n'>{_decimals(r['score'])}</td>"
        f"<td class='n'>{_milliseconds(r)}</td></tr>"
        for i, r in enumerate(rows)
    )
    task = run.evaluation.get("task_name") or rows[0]["task"]
    seeds = [e["seed"] for e in rows[0].get("per_episode", [])]
    starts = f"starts {min(seeds)} to {max(seeds)}, which training never saw" if seeds else "unseen starts"
    return (
        f"<section><h2>Success on {escape(str(task))}</h2>"
        f"<p>{rows[0]['episodes']} episodes each, {starts}. Dot: share of successes; band: its 95 % interval "
        f"(Wilson).</p><div class='pair'><div>{chart}</div><div class='scroll'><table><tr><th>policy</th>"
        "<th class='n'>score</th><th class='n'>95 %</th><th class='n'>latency</th></tr>"
        f"{cells}</table></div></div></section>"
    )


def _selection(run: Run) -> str:
    if not run.selection:
        return ""
    first, *others = run.selection["told"]
    words = escape(f"{first[0].upper()}{first[1:]}; " + "; ".join(others) + ".")
    picture = run.folder / CURVE
    shown = f"<figure>{_embed(picture)}</figure>" if picture.is_file() else ""
    return f"<section><h2>Weights</h2><p>{words}</p>{shown}</section>"


def _videos(run: Run) -> str:
    own = run.evaluation.get("policy") or {}
    episodes = {e["seed"]: e for e in own.get("per_episode", [])}
    figures = []
    for name in own.get("videos", [])[:_VIDEO_LIMIT]:
        path = run.folder / name
        if not path.is_file():
            continue
        seed = path.stem.rsplit("_", 1)[-1]
        episode = episodes.get(int(seed)) if seed.isdigit() else None
        caption = f"start {seed}"
        if episode:
            ending = f"solved in {episode['solved_at']} steps" if episode["success"] else "not solved"
            caption += f": {ending}, score {episode['score']:.2f}"
        figures.append(f"<figure>{_embed(path)}<figcaption>{escape(caption)}</figcaption></figure>")
    if not figures:
        return ""
    return (
        "<section><h2>Videos</h2><p>The first starts of the evaluation, not a selection.</p>"
        f"<div class='videos'>{''.join(figures)}</div></section>"
    )


def _embed(path: Path) -> str:
    kind = _KINDS.get(path.suffix.lower(), "application/octet-stream")
    data = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    if kind.startswith("video/"):
        return f"<video controls muted loop playsinline preload='metadata' src='{data}'></video>"
    return f"<img alt='{escape(path.stem, quote=True)}' src='{data}'>"


def _episodes(run: Run) -> str:
    episodes = (run.evaluation.get("policy") or {}).get("per_episode", [])
    if not episodes:
        return ""
    failed = [str(e["seed"]) for e in episodes if not e["success"]]
    more = f" and {len(failed) - 12} more" if len(failed) > 12 else ""
    listed = f"Not solved: {', '.join(failed[:12])}{more}." if failed else "All solved."
    chart = charts.strip(
        [e["score"] for e in episodes],
        [e["success"] for e in episodes],
        [f"start {e['seed']}: score {e['score']:.3f}, {e['length']} steps" for e in episodes],
    )
    return (
        "<section><h2>Every episode</h2><p>Best score of each start; green: success. "
        f"{escape(listed)}</p>{chart}</section>"
    )


def _series(run: Run, key: str, name: str) -> charts.Series:
    rows = [row for row in run.metrics if row.get(key) is not None]
    return charts.Series(name, [row["step"] for row in rows], [row[key] for row in rows])


def _training(run: Run) -> str:
    if not run.metrics:
        return ""
    drawings = (
        (
            "Loss",
            charts.lines(
                [_series(run, "loss", "training"), _series(run, "held_out_loss", "held-out")],
                x_label="updates",
                log=True,
            ),
        ),
        ("Learning rate", charts.lines([_series(run, "learning_rate", "rate")], x_label="updates")),
        ("Gradient norm", charts.lines([_series(run, "gradient_norm", "norm")], x_label="updates", log=True)),
        ("Updates per second", charts.lines([_series(run, "updates_per_second", "rate")], x_label="updates")),
    )
    figures = "".join(f"<div><h3>{name}</h3>{drawing}</div>" for name, drawing in drawings)
    return (
        "<section><h2>Training</h2><p>Held-out: whole episodes that training never saw.</p>"
        f"<div class='pair'>{figures}</div></section>"
    )


def _latency(run: Run) -> str:
    own = run.evaluation.get("policy") or {}
    values = (own.get("latency_ms") or {}).get("all", [])
    if not values:
        return ""
    hz = run.evaluation.get("control_hz")
    execute = run.evaluation.get("execute") or 1
    period = 1000.0 / hz if hz else None
    chart = charts.histogram(
        values,
        x_label="milliseconds per prediction",
        mark=(period, f"control period {period:.0f} ms") if period else None,
    )
    budget = (
        f" The robot takes a command every {period:.0f} ms, and one prediction serves {execute} of them."
        if period
        else ""
    )
    return (
        "<section><h2>Latency</h2><p>Time of one prediction for one robot, observation encoding included."
        f"{budget}</p>{chart}</section>"
    )


def _environment(run: Run) -> str:
    if not run.environment:
        return ""
    rows = []
    for key, value in run.environment.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {v}" for name, v in value.items() if v)
        if value not in (None, ""):
            rows.append((key.replace("_", " "), str(value)))
    return f"<section><h2>Environment</h2>{_table(rows)}</section>"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table class='facts'>{cells}</table>"


def _config(run: Run) -> str:
    if not run.config:
        return ""
    text = yaml.safe_dump(dict(run.config), sort_keys=False, default_flow_style=None, width=100)
    return (
        "<section><details open><summary>Configuration</summary>"
        f"<pre>{escape(text)}</pre></details></section>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if abs(100 * share - round(100 * share)) < 0.05 else f"{100 * share:.1f} %"


def _percents(interval: Mapping[str, Any]) -> str:
    return f"[{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _decimals(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None or interval["high"] is None:
        return "no interval from one episode"
    return f"[{interval['low']:.3f}, {interval['high']:.3f}]"


def _milliseconds(evaluation: Mapping[str, Any]) -> str:
    median = evaluation["latency_ms"]["median"]
    return milliseconds(median) if median is not None else ""
