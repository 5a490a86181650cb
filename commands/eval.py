"""`sensorimotor eval`: how good is a trained policy, with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ..composition.saved import composition_file
from ..composition.saved import load as load_any
from ..configs.train import Baseline, EvalConfig, TrainConfig
from ..configs.typed import build, option_name
from ..data.errors import ConfigError
from ..policies.factory import find_checkpoint, is_address, load, make_policy
from ..policies.nearest import NearestConfig
from ..policies.policy import GenerativePolicy, Policy
from ..sim.tasks import TaskConfig
from .console import Screen
from .judging import judge
from .learning import load_lesson, numbers_of
from .members import task_of
from .names import policy_name, shown_name
from .runs import EVALUATION, read_yaml


def run(config: EvalConfig, screen: Screen) -> int:
    """Evaluate, write evaluation.json and videos, print the table."""
    if is_address(config.checkpoint):
        return _run_served(config, screen)
    if (file := composition_file(config.checkpoint)) is not None:
        return _run_composed(config, file, screen)
    checkpoint = find_checkpoint(config.checkpoint)
    trained = trained_as(checkpoint)
    policy = load(checkpoint)
    _choose_sampler(policy, config)
    out = Path(config.out) if config.out else run_folder(checkpoint)
    screen.note(f"evaluating {checkpoint}")
    fitted = fitted_baselines(trained, run_folder(checkpoint), screen) if trained else {}
    judge(
        policy,
        policy_name(policy.config),
        _task(config, trained, checkpoint),
        replace(config, baselines=_baselines(config, trained, fitted)),
        out,
        screen,
        fitted=fitted,
        now=datetime.now(),
    )
    screen.say(f"written: {out / EVALUATION}")
    if (out / "config.yaml").exists():
        screen.say(f"next: sensorimotor report run={out}")
    return 0


def _run_served(config: EvalConfig, screen: Screen) -> int:
    """Evaluate a policy that another process holds; nothing is known of how it was trained."""
    from ..policies.remote.remote import connect

    if config.out is None:
        raise ConfigError(f"{config.checkpoint} is no folder to write to; give one, as in out=runs/served")
    with connect(config.checkpoint) as policy:
        _choose_sampler(policy, config)
        screen.note(f"evaluating {policy.name} at {config.checkpoint}")
        judge(
            policy,
            f"{policy.name}, served",
            _task(config, None, config.checkpoint),
            replace(config, baselines=_baselines(config, None, {})),
            Path(config.out),
            screen,
            fitted={},
            now=datetime.now(),
        )
    screen.say(f"written: {Path(config.out) / EVALUATION}")
    return 0


def _run_composed(config: EvalConfig, file: Path, screen: Screen) -> int:
    """Evaluate what was made of several policies."""
    policy = load_any(file)
    _choose_sampler(policy, config)
    out = Path(config.out) if config.out else file.parent
    screen.note(f"evaluating {file}")
    judge(
        policy,
        shown_name(policy),
        task_of(config.task, [str(file)]),
        replace(config, baselines=_baselines(config, None, {})),
        out,
        screen,
        fitted={},
        now=datetime.now(),
    )
    screen.say(f"written: {out / EVALUATION}")
    return 0


def _choose_sampler(policy: Policy, config: EvalConfig) -> None:
    if config.sampler is None:
        return
    if not isinstance(policy, GenerativePolicy):
        raise ConfigError(f"sampler= is for policies that sample; {type(policy).__name__} does not")
    policy.sampler = config.sampler


def run_folder(checkpoint: Path) -> Path:
    """The run a checkpoint belongs to, or else its own folder."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    return checkpoint


def trained_as(checkpoint: Path) -> TrainConfig | None:
    """The configuration of the run a checkpoint belongs to, if it is still beside it."""
    folder = run_folder(checkpoint)
    values = read_yaml(folder / "config.yaml") if folder != checkpoint else {}
    return build(TrainConfig, values) if values else None


def fitted_baselines(
    trained: TrainConfig, folder: Path, screen: Screen
) -> dict[Baseline, Callable[[], Policy]]:
    """What makes the baselines that learn from the run's data."""

    def nearest() -> Policy:
        lesson = load_lesson(trained.data, trained.task, seed=trained.seed, folder=folder, screen=screen)
        chunk = numbers_of(trained.policy.chunk, lesson.training.spec)
        return make_policy(NearestConfig(chunk=chunk), lesson.training)

    def regressor() -> Policy:
        return load(regressor_folder(folder))

    kept = regressor_folder(folder).exists()
    return {"nearest": nearest, **({"regressor": regressor} if kept else {})}


def compared_with(trained: TrainConfig) -> tuple[Baseline, ...]:
    """The baselines of a run, without what it trained itself."""
    own = option_name(type(trained.policy))
    return tuple(baseline for baseline in trained.evaluation.baselines or () if baseline != own)


def _baselines(
    config: EvalConfig, trained: TrainConfig | None, fitted: Mapping[Baseline, object]
) -> tuple[Baseline, ...]:
    """What was asked for, or else what the run was compared with and can be made again."""
    if config.baselines is not None:
        return config.baselines
    if trained is None:
        return ("hold_still", "random")
    return tuple(b for b in compared_with(trained) if b in fitted or b in ("hold_still", "random"))


def regressor_folder(folder: Path) -> Path:
    """Where a run keeps the regressor it is compared with."""
    return folder / "baselines" / "regressor"


def _task(config: EvalConfig, trained: TrainConfig | None, checkpoint: Path | str) -> TaskConfig:
    task = config.task or (trained.task if trained else None)
    if task is None:
        raise ConfigError(f"{checkpoint} does not say its task; give one, as in task=push_t")
    return task
