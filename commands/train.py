"""`sensorimotor train`: from demonstrations to an evaluated policy, or to a critic, in one run folder."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ..configs.train import TrainConfig
from ..configs.typed import plain
from ..data.errors import TrainingError
from ..data.files import write_json
from ..data.instructions import INSTRUCTION
from ..policies.factory import load, make_policy
from ..policies.network import NetworkConfig
from ..policies.presets import PRESETS
from ..policies.regression import RegressorConfig
from ..training.loop import Outcome
from ..training.run import write_config
from .console import Screen
from .critics import train_critic
from .eval import compared_with, fitted_baselines, regressor_folder
from .judging import judge
from .learning import Lesson, check_task, fit, load_lesson, numbers_of, record_if_absent
from .names import policy_name
from .outcome import announce, facts, interrupted, say_interrupted, sum_up


def run(config: TrainConfig, screen: Screen) -> int:
    """Train, evaluate, and say what to do next."""
    folder = _folder(config, datetime.now())
    record_if_absent(config.data, config.task, screen)
    told = INSTRUCTION in (config.critic or config.policy).chunk.observation
    lesson = load_lesson(config.data, config.task, seed=config.seed, folder=folder, screen=screen, told=told)
    if config.critic is not None:
        return train_critic(config, config.critic, lesson, folder, screen)
    policy = make_policy(config.policy, lesson.training, seed=config.seed)
    if config.task is not None:
        check_task(policy.spec, config.task)
    announce(config, lesson, policy, policy_name(config.policy), folder, screen)
    write_config(folder, plain(config))
    outcome = fit(policy, lesson, config.training, folder, screen, resume=config.resume)
    write_json(folder / "outcome.json", facts(lesson, policy, outcome, folder, now=datetime.now()))
    if outcome is not None:
        if interrupted(outcome, config):
            return say_interrupted(outcome, config, folder, screen)
        sum_up(outcome, screen)
    if config.task is None or config.evaluation.episodes == 0:
        screen.say(f"run folder: {folder}")
        return 0
    baselines = compared_with(config)
    if "regressor" in baselines:
        outcome = _fit_regressor(config, lesson, folder, screen)
        if outcome is not None and interrupted(outcome, config):
            return say_interrupted(outcome, config, folder, screen)
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


def _folder(config: TrainConfig, now: datetime) -> Path:
    """The run folder, which holds no other run."""
    folder = Path(config.run) if config.run else Path("runs") / f"{config.name}-{now:%Y%m%d-%H%M%S}"
    if (folder / "checkpoints" / "last").exists() and not config.resume:
        raise TrainingError(f"{folder} already holds a run; go on with resume=true, or choose another run=")
    return folder


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
