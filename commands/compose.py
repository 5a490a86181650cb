"""`sensorimotor compose`: from trained policies to one evaluated, saved composition."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from ..composition.bayesian import Bayesian, bayesian_search, rounded
from ..composition.composed import ComposedPolicy, compose
from ..composition.curve import weight_curve
from ..composition.ensemble import Ensemble
from ..composition.ito import ReverseSDE
from ..composition.prior import denoising_weights
from ..composition.probe import check_member
from ..composition.saved import load, save
from ..composition.search import Choice, Race, grid_search, parents, race, simplex_grid
from ..composition.seeds import Seeds
from ..composition.selection import SelectionReport, report_selection
from ..composition.superposed import superpose
from ..composition.trials import Array, Trials, Weights
from ..configs.composing import ComposeConfig, Value
from ..configs.train import EvaluationConfig
from ..configs.typed import plain
from ..data.episodes import Episodes
from ..data.errors import ConfigError, TrainingError
from ..data.files import write_json
from ..data.intervals import Interval
from ..data.schema import to_mapping
from ..policies.factory import COMPOSITION
from ..policies.policy import Policy
from ..sim.task import Task
from ..sim.tasks import TaskConfig, make_task
from ..sim.weight_trials import play
from ..training.run import write_config
from .console import Screen
from .judging import judge
from .learning import load_lesson
from .members import describe_members, names_of, task_of
from .runs import CURVE, SELECTION

TRIALS = "trials.jsonl"
_PARTS = 50  # weights to start from are rounded to multiples of 1 / 50


def run(config: ComposeConfig, screen: Screen) -> int:
    """Compose, search weights if none are given, evaluate beside the parents, save."""
    now = datetime.now()
    folder = Path(config.out) if config.out else Path("runs") / f"composition-{now:%Y%m%d-%H%M%S}"
    if (folder / TRIALS).exists() and not config.resume:
        raise TrainingError(
            f"{folder} already holds a search; go on with resume=true, or choose another out="
        )
    names = names_of(config.members, config.names)
    task = task_of(config.task, config.members)
    members = {name: load(path) for name, path in zip(names, config.members, strict=True)}
    screen.note(f"out         {folder}")
    screen.note(f"members     {describe_members(names, list(members.values()))}")
    demonstrations = _demonstrations(config, task, folder, screen)
    if demonstrations is not None:
        _probe(members, demonstrations, screen)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, plain(replace(config, task=task)))
    policy, trials, choice = _composed(config, members, task, demonstrations, folder, screen)
    save(policy, folder)
    screen.say(str(policy))
    found = _judge(config, policy, members, task, folder, screen, now)
    if trials is not None and choice is not None:
        _report(config, trials, choice, found, list(members), folder, screen)
    screen.say(f"written: {folder}")
    screen.say(f"next: sensorimotor serve checkpoint={folder}")
    return 0


def _composed(
    config: ComposeConfig,
    members: Mapping[str, Policy],
    task: TaskConfig,
    demonstrations: Episodes | None,
    folder: Path,
    screen: Screen,
) -> tuple[Ensemble, Trials | None, Choice | None]:
    """The composition, and how its weights were found if they were searched."""
    match config.operator:
        case "mix":
            made = _mix(config, members, config.weights)
            if config.weights is not None or len(members) == 1:
                return made, None, None
            # One sampler for all candidates, the parents among them.
            config = replace(config, sampler=made.sampler)
            trials, choice = _search(config, members, made, task, demonstrations, folder, screen)
            return _mix(config, members, choice.weights), trials, choice
        case "or" | "and":
            if config.sampler is not None and not isinstance(config.sampler, ReverseSDE):
                raise ConfigError(
                    f"operator={config.operator} follows densities, which only sampler=reverse_sde does; "
                    f"got {type(config.sampler).__name__}"
                )
            prior = config.weights if config.operator == "or" else None
            made = superpose(
                members, config.operator, prior=prior, sampler=config.sampler, fallback=config.fallback
            )
            return made, None, None
        case _:
            assert_never(config.operator)


def _mix(config: ComposeConfig, members: Mapping[str, Policy], weights: Weights | None) -> ComposedPolicy:
    return compose(members, weights, sampler=config.sampler, fallback=config.fallback)


def _search(
    config: ComposeConfig,
    members: Mapping[str, Policy],
    even: ComposedPolicy,
    task: TaskConfig,
    demonstrations: Episodes | None,
    folder: Path,
    screen: Screen,
) -> tuple[Trials, Choice]:
    """The weights that did best on selection starts."""
    starts: list[Weights] = [(1 / len(members),) * len(members)]
    if demonstrations is not None:
        prior = denoising_weights(even, demonstrations)
        screen.say(f"weights that denoise the demonstrations best: {_written(prior)}")
        starts.append(prior)
    worlds = make_task(task, worlds=min(config.worlds, config.selection))
    try:
        trials = _trials(config, members, task, worlds, folder / TRIALS, screen)
        return trials, _choose(config, trials, len(members), starts)
    finally:
        worlds.close()


def _trials(
    config: ComposeConfig,
    members: Mapping[str, Policy],
    task: TaskConfig,
    worlds: Task,
    file: Path,
    screen: Screen,
) -> Trials:
    """Episodes of this search, those of an interrupted one among them."""
    roll_out = play(members, worlds, sampler=config.sampler, value=config.value)

    identity = {
        "members": [
            _identity(path, member) for path, member in zip(config.members, members.values(), strict=True)
        ],
        "task": to_mapping(task),
        "sampler": None if config.sampler is None else to_mapping(config.sampler),
        "fallback": config.fallback,
        "value": config.value,
    }

    def noted(weights: Weights, seeds: Sequence[int]) -> Array:
        values = roll_out(weights, seeds)
        screen.note(
            f"weights {_written(weights)}: {config.value} {values.mean():.3f} in {len(values)} episodes"
        )
        return values

    return Trials(noted, file, identity=identity)


def _identity(path: str, member: Policy) -> str:
    """What a member is known by: its checkpoint, the file that says what it is composed of, or what a server says of it."""
    if member.source is not None:
        return member.source.checksum
    file = Path(path) / COMPOSITION
    told = file.read_bytes() if file.is_file() else member.spec.to_json().encode()
    return f"{path} {hashlib.sha256(told).hexdigest()}"


def _choose(config: ComposeConfig, trials: Trials, members: int, starts: list[Weights]) -> Choice:
    seeds = Seeds(selection=config.selection, reporting=config.episodes)
    grid = list(dict.fromkeys([*simplex_grid(members, config.parts), *(rounded(w, _PARTS) for w in starts)]))
    match config.search:
        case "grid":
            return grid_search(trials, grid, seeds)
        case "race":
            return race(trials, grid, seeds, Race())
        case "bayesian":
            proposals = Bayesian(candidates=config.candidates)
            return bayesian_search(trials, members, seeds, proposals, starts=starts)
        case _:
            assert_never(config.search)


def _judge(
    config: ComposeConfig,
    policy: Ensemble,
    members: Mapping[str, Policy],
    task: TaskConfig,
    folder: Path,
    screen: Screen,
    now: datetime,
) -> dict[str, Any]:
    """The composition beside its members alone, drawn alike, on reporting starts."""
    alone = {name: compose({name: member}, sampler=policy.sampler) for name, member in members.items()}
    evaluation = EvaluationConfig(episodes=config.episodes, video=config.video, worlds=config.worlds)
    return judge(policy, "composition", task, evaluation, folder, screen, fitted={}, now=now, parts=alone)


def _report(
    config: ComposeConfig,
    trials: Trials,
    choice: Choice,
    found: Mapping[str, Any],
    names: list[str],
    folder: Path,
    screen: Screen,
) -> None:
    """What the search was worth, told with the episodes that were judged."""
    seeds = Seeds(selection=config.selection, reporting=config.episodes)
    played = [found["policy"], *found["baselines"]]
    for weights, result in zip([choice.weights, *parents(len(names))], played, strict=True):
        rows = result["per_episode"]
        values = np.array([float(row[config.value]) for row in rows])
        trials.remember(weights, [row["seed"] for row in rows], values)
    report = report_selection(trials, choice, seeds)
    lines = told(report, names, config.value)
    facts = {"members": names, "value": config.value, "told": lines, **report.to_dict()}
    write_json(folder / SELECTION, facts)
    weight_curve(report, names, folder / CURVE, value=config.value)
    for line in lines:
        screen.say(line)


def told(report: SelectionReport, names: list[str], value: Value) -> list[str]:
    """A search in three sentences."""
    written = Interval.percent if value == "success" else Interval.decimal
    judged = dict(report.curve)[report.choice.weights]
    alone = names[report.parent.index(1.0)]
    gain = report.gain
    return [
        f"weights {_written(report.choice.weights)} of {', '.join(names)} chosen among {len(report.curve)}, "
        f"{report.spent[0]:,} episodes: {value} {written(judged)} there",
        f"on other starts: {written(report.chosen_value)}; {alone} alone {written(report.parent_value)}; "
        f"difference {100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
        f"the best of a selection looks about {100 * report.optimism:.1f} points better than it is",
    ]


def _written(weights: Weights) -> str:
    return " / ".join(f"{w:.3g}" for w in weights)


def _demonstrations(config: ComposeConfig, task: TaskConfig, folder: Path, screen: Screen) -> Episodes | None:
    if config.data is None:
        return None
    lesson = load_lesson(config.data, task, seed=0, folder=folder, screen=screen)
    return lesson.held_out or lesson.training


def _probe(members: Mapping[str, Policy], demonstrations: Episodes, screen: Screen) -> None:
    """Refuse members of another convention before anything moves."""
    for name, member in members.items():
        found = check_member(member, demonstrations)
        screen.note(f"probe       {name}: truth over answer {found.slope:.2f}, error {found.error:.2f}")
