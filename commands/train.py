"""`sensorimotor train`: from demonstrations to an evaluated policy in one run folder."""

from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..configs.train import TrainConfig
from ..configs.typed import plain
from ..data.errors import TrainingError
from ..data.files import write_json
from ..data.instructions import INSTRUCTION
from ..policies.factory import load, make_policy
from ..policies.network import NetworkConfig
from ..policies.policy import Policy
from ..policies.presets import PRESETS
from ..policies.regression import RegressorConfig
from ..training.loop import Outcome
from ..training.metrics import read_metrics
from ..training.run import write_config
from .console import Screen, duration
from .eval import compared_with, fitted_baselines, regressor_folder
from .judging import judge
from .learning import Lesson, check_task, fit, load_lesson, numbers_of, record_if_absent
from .names import policy_name


def run(config: TrainConfig, screen: Screen) -> int:
    """Train, evaluate, and say what to do next."""
    now = datetime.now()
    folder = Path(config.run) if config.run else Path("runs") / f"{config.name}-{now:%Y%m%d-%H%M%S}"
    if (folder / "checkpoints" / "last").exists() and not config.resume:
        raise TrainingError(f"{folder} already holds a run; go on with resume=true, or choose another run=")
    record_if_absent(config.data, config.task, screen)
    told = INSTRUCTION in config.policy.chunk.observation
    lesson = load_lesson(config.data, config.task, seed=config.seed, folder=folder, screen=screen, told=told)
    policy = make_policy(config.policy, lesson.training, seed=config.seed)
    if config.task is not None:
        check_task(policy, config.task)
    _announce(config, lesson, policy, folder, screen)
    write_config(folder, plain(config))
    outcome = fit(policy, lesson, config.training, folder, screen, resume=config.resume)
    write_json(folder / "outcome.json", _facts(lesson, policy, outcome, folder, now=datetime.now()))
    if outcome is not None:
        if _interrupted(outcome, config):
            return _say_interrupted(outcome, config, folder, screen)
        _sum_up(outcome, screen)
    if config.task is None or config.evaluation.episodes == 0:
        screen.say(f"run folder: {folder}")
        return 0
    baselines = compared_with(config)
    if "regressor" in baselines:
        outcome = _fit_regressor(config, lesson, folder, screen)
        if outcome is not None and _interrupted(outcome, config):
            return _say_interrupted(outcome, config, folder, screen)
    judge(
        load(folder),
        policy_name(config.policy),
        config.task,
        replace(config.evaluation, baselines=baselines),
        folder,
        screen,
        fitted=fitted_baselines(config, folder, screen),
        now=datetime.now(),
    )
    screen.say(f"run folder: {folder}")
    screen.say(f"next: sensorimotor report run={folder}")
    return 0


def _fit_regressor(config: TrainConfig, lesson: Lesson, folder: Path, screen: Screen) -> Outcome | None:
    """The plain regressor a policy is compared with: same data, windows, network, features and updates."""
    match config.policy:
        case NetworkConfig() as own:
            regressor = RegressorConfig.like(own)
        case _:
            chunk = numbers_of(config.policy.chunk, lesson.training.spec)
            regressor = replace(PRESETS["regressor"].policy, chunk=chunk)
    policy = make_policy(regressor, lesson.training, seed=config.seed)
    screen.note("baseline    training the regressor")
    return fit(policy, lesson, config.training, regressor_folder(folder), screen, resume=True)


def _say_interrupted(outcome: Outcome, config: TrainConfig, folder: Path, screen: Screen) -> int:
    screen.say(f"stopped after {outcome.steps:,} of {config.training.steps:,} updates; everything is saved")
    screen.say(f"go on: sensorimotor train run={folder} resume=true")
    return 0


def _announce(config: TrainConfig, lesson: Lesson, policy: Policy, folder: Path, screen: Screen) -> None:
    parameters = sum(p.numel() for p in policy.parameters())
    held_out = 0 if lesson.held_out is None else len(lesson.held_out)
    mirrored = ", each also mirrored" if config.data.mirror else ""
    screen.note(f"run folder  {folder}")
    screen.note(
        f"data        {lesson.recorded - held_out} episodes{mirrored}, {lesson.training.steps:,} steps; "
        f"{held_out} held out"
    )
    screen.note(f"policy      {policy_name(config.policy)}, {parameters:,} parameters")


def _facts(
    lesson: Lesson, policy: Policy, outcome: Outcome | None, folder: Path, *, now: datetime
) -> dict[str, Any]:
    """What the report says about the training, over all calls of it."""
    seconds = [row["seconds"] for row in read_metrics(folder) if row.get("seconds") is not None]
    facts: dict[str, Any] = {
        "finished": f"{now:%Y-%m-%d %H:%M}",
        "seconds": seconds[-1] if seconds else None,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "data": {
            "episodes": len(lesson.training),
            "steps": lesson.training.steps,
            "recorded": lesson.recorded,
            "held_out": 0 if lesson.held_out is None else len(lesson.held_out),
        },
    }
    return facts | ({"training": asdict(outcome)} if outcome is not None else {})


def _interrupted(outcome: Outcome, config: TrainConfig) -> bool:
    """Whether training was asked to stop, rather than having used up its time."""
    minutes = config.training.minutes
    return outcome.stopped and (minutes is None or outcome.seconds < 60 * minutes)


def _sum_up(outcome: Outcome, screen: Screen) -> None:
    best = "" if outcome.best_held_out is None else f", best held-out loss {outcome.best_held_out:.4g}"
    screen.say(
        f"trained {outcome.steps:,} updates in {duration(outcome.seconds)} "
        f"({outcome.updates_per_second:.1f} per second), loss {outcome.loss:.4g}{best}"
    )
