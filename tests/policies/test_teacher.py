"""What a student and its teacher must agree on, and that the teacher stays behind."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError, NormalizerError, SpecError, TrainingError
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.consistency import ConsistencyConfig, ConsistencyJump
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import build_policy, describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.reflow import ReflowConfig
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM
from sensorimotor.policies.teacher import Student
from sensorimotor.training.checkpoint import save_checkpoint, save_weights
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import train

SHARED = {
    "chunk": ChunkConfig(observation_steps=2, horizon=4, execute=2),
    "trunk": MLPConfig(width=16, depth=1, step_width=8),
}
FLOW = FlowConfig(**SHARED)
DIFFUSION = DiffusionConfig(**SHARED)
STUDENTS = [ConsistencyConfig(**SHARED), ReflowConfig(**SHARED, solver=DDIM(steps=2))]
IDS = ["consistency", "reflow"]


def save(policy: Policy, folder: Path) -> Path:
    save_checkpoint(
        folder, partial(describe, policy), lambda to: save_weights(policy, to / "model.safetensors")
    )
    return folder


def make(config: ConsistencyConfig | ReflowConfig, episodes: Episodes, teacher: Policy) -> Student:
    assert isinstance(teacher, GenerativePolicy)
    student = make_policy(config, episodes, teacher=teacher)
    assert isinstance(student, Student)
    return student


def options(steps: int = 6) -> TrainingConfig:
    return TrainingConfig(
        steps=steps, batch_size=8, warmup_steps=2, log_every=2, evaluate_every=3, checkpoint_every=3,
        device="cpu", tensorboard=False,
    )  # fmt: skip


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
@pytest.mark.parametrize("taught_by", [FLOW, DIFFUSION], ids=["flow", "diffusion"])
def test_a_student_is_trained_from_a_saved_run_and_loaded_without_it(
    tmp_path: Path, episodes: Episodes, config: ConsistencyConfig, taught_by: FlowConfig
) -> None:
    teacher = save(make_policy(taught_by, episodes), tmp_path / "teacher")
    config = replace(config, teacher=str(teacher))
    student = make_policy(config, episodes)
    windows = Windows(episodes, student.spec)
    train(
        student, windows, options(), tmp_path / "run", held_out=windows, describe=partial(describe, student)
    )
    shutil.rmtree(teacher)
    loaded = load(tmp_path / "run")
    assert loaded.config == config
    chunk = loaded.sample(windows.batch(np.arange(3)).observation, samples=2)
    assert chunk.shape == (3, 2, 4, 2)
    assert torch.isfinite(chunk).all()
    with pytest.raises(TrainingError, match=r"learns from a trained policy; .*policy\.teacher=runs"):
        loaded(windows.batch(np.arange(3)), torch.Generator())


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_a_loaded_student_is_the_saved_one(
    tmp_path: Path, episodes: Episodes, config: ConsistencyConfig
) -> None:
    student = make(config, episodes, make_policy(FLOW, episodes)).eval()
    loaded = load(save(student, tmp_path / "checkpoint"))
    observation = Windows(episodes, student.spec).batch(np.arange(3)).observation
    assert torch.equal(loaded.sample(observation, samples=2), student.sample(observation, samples=2))


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_an_interrupted_student_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, episodes: Episodes, config: ConsistencyConfig
) -> None:
    config = replace(config, teacher=str(save(make_policy(FLOW, episodes), tmp_path / "teacher")))
    weights = []
    for run, stops in (("straight", (6,)), ("interrupted", (4, 6))):
        for stop in stops:
            student = make_policy(config, episodes)
            count = iter(range(1, 100))
            train(
                student, Windows(episodes, student.spec), options(), tmp_path / run,
                resume=stop == 6 and len(stops) == 2, describe=partial(describe, student),
                stop=lambda count=count, stop=stop: next(count) >= stop,
            )  # fmt: skip
        weights.append([p.detach().clone() for p in student.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_the_teacher_is_no_part_of_the_student(episodes: Episodes, config: ConsistencyConfig) -> None:
    teacher = make_policy(FLOW, episodes, seed=1).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = make(config, episodes, teacher)
    alone = build_policy(config, student.spec, student.normalizer)
    assert student.state_dict().keys() == alone.state_dict().keys()
    assert [name for name, _ in student.named_modules()] == [name for name, _ in alone.named_modules()]
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1)
    for _ in range(2):
        student.train()
        student(
            Windows(episodes, student.spec).batch(np.arange(8)), torch.Generator().manual_seed(0)
        ).backward()
        optimizer.step()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_half_precision_gives_every_weight_the_gradient_of_full(
    episodes: Episodes, config: ConsistencyConfig
) -> None:
    student = make(config, episodes, make_policy(FLOW, episodes))
    batch = Windows(episodes, student.spec).batch(np.arange(16))
    gradients = []
    for half in (False, True):
        student.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            student(batch, torch.Generator().manual_seed(0)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert len(gradients[0]) == sum(p.numel() for p in student.parameters())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_repeated_actions_past_the_end_of_an_episode_teach_nothing(
    episodes: Episodes, config: ConsistencyConfig
) -> None:
    student = make(replace(config, mask_loss=True), episodes, make_policy(FLOW, episodes))
    batch = Windows(episodes, student.spec).batch(np.arange(4))
    nothing = replace(batch, mask=torch.zeros_like(batch.mask))
    assert student(nothing, torch.Generator().manual_seed(0)).item() == 0.0
    assert student(batch, torch.Generator().manual_seed(0)).item() > 0.0


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_both_are_shown_the_same_disturbed_observation(
    episodes: Episodes, config: ConsistencyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, observation_noise=0.3, history_dropout=0.5, draws=2)
    student = make(config, episodes, make_policy(FLOW, episodes))
    shown = []
    for policy in (student, student.teacher):
        features: Any = policy._features
        monkeypatch.setattr(
            policy, "_features", lambda seen, *rest, ask=features: shown.append(seen) or ask(seen, *rest)
        )
    batch = Windows(episodes, student.spec).batch(np.arange(4))
    action, mine, told = student.lesson(batch, torch.Generator().manual_seed(0))
    for key, recorded in batch.observation.items():
        assert torch.equal(shown[0][key], shown[1][key])
        assert not torch.allclose(shown[0][key], recorded)
    assert len(action) == len(mine.values) == len(told.values) == 8


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_the_student_scales_as_its_teacher_does_and_begins_with_its_weights(
    episodes: Episodes, make_episodes: Callable, config: ConsistencyConfig
) -> None:
    scaling = NormalizerConfig(action="mean_std")
    teacher = make_policy(replace(FLOW, normalizer=scaling), episodes)
    if isinstance(config, ConsistencyConfig):
        with pytest.raises(
            ConfigError, match=r"clip 1\.0 cuts actions off when they are scaled by 'mean_std'"
        ):
            make(config, episodes, teacher)
        config = replace(config, sampler=ConsistencyJump(clip=None))
    assert isinstance(teacher, GenerativePolicy)
    student = make(config, make_episodes(seed=5), teacher)
    for mine, theirs in zip(
        student.normalizer.affine("action"), teacher.normalizer.affine("action"), strict=True
    ):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
    assert student.config.normalizer == scaling  # what is saved tells the truth
    theirs = dict(teacher.named_parameters())
    same = {n for n, p in student.named_parameters() if n in theirs and p.shape == theirs[n].shape}
    assert {"trunk.blocks.0.widen.weight", "trunk.outlet.weight"} <= same
    for name, parameter in student.named_parameters():
        if name in same:
            assert torch.equal(parameter, theirs[name])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"chunk": ChunkConfig(observation_steps=2, horizon=8, execute=2)}, SpecError,
         r"horizon differs: student 4, teacher 8; set policy\.chunk\.horizon=8"),
        ({"chunk": ChunkConfig(observation_steps=2, horizon=4, execute=2, start=-1)}, SpecError,
         r"start differs: student 0, teacher -1"),
        ({"chunk": ChunkConfig(observation=("state",), observation_steps=2, horizon=4, execute=2)}, SpecError,
         r"observation differs: student \['state', 'environment'\], teacher \['state'\]"),
        ({"relative": "state"}, ConfigError, r"relative differs: student None, teacher 'state'; set policy\.relative=state"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_a_teacher_of_something_else_is_refused_by_name(
    episodes: Episodes, config: ConsistencyConfig, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(config, episodes, make_policy(replace(FLOW, **changes), episodes))


def test_a_teacher_of_another_task_is_refused(episodes: Episodes) -> None:
    teacher = make_policy(FLOW, episodes)
    other = replace(episodes, spec=replace(episodes.spec, control_hz=20))
    with pytest.raises(
        SpecError, match=r"control_hz differs: student 20, teacher 10; train both on the same data"
    ):
        make(STUDENTS[0], other, teacher)
    action = replace(episodes.spec.action, unit="rad")
    with pytest.raises(SpecError, match=r"action differs: .*'rad'.*'m'"):
        make(STUDENTS[0], replace(episodes, spec=replace(episodes.spec, action=action)), teacher)


def test_a_teacher_that_scales_actions_differently_is_refused(
    episodes: Episodes, make_episodes: Callable
) -> None:
    student = make(STUDENTS[0], episodes, make_policy(FLOW, episodes))
    with pytest.raises(NormalizerError, match="scale actions differently"):
        student.learn_from(make_policy(FLOW, make_episodes(seed=5)))


def test_a_teacher_that_acts_relative_to_something_is_refused_by_the_student_itself(
    episodes: Episodes,
) -> None:
    student = make(STUDENTS[0], episodes, make_policy(FLOW, episodes))
    with pytest.raises(ConfigError, match="relative differs: student None, teacher 'state'"):
        student.learn_from(make_policy(replace(FLOW, relative="state"), episodes))


def test_a_policy_without_noise_levels_cannot_teach(tmp_path: Path, episodes: Episodes) -> None:
    regressor = save(make_policy(RegressorConfig(**SHARED), episodes), tmp_path / "regressor")
    with pytest.raises(ConfigError, match=r"RegressionPolicy cannot teach.*give a diffusion or flow policy"):
        make_policy(replace(STUDENTS[0], teacher=str(regressor)), episodes)


@pytest.mark.parametrize("config", STUDENTS, ids=IDS)
def test_a_student_without_a_teacher_is_told_how_to_get_one(
    tmp_path: Path, episodes: Episodes, config: ConsistencyConfig
) -> None:
    with pytest.raises(ConfigError, match=r"none is named; .*policy\.teacher=runs"):
        make_policy(config, episodes)
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nowhere"):
        make_policy(replace(config, teacher=str(tmp_path / "nowhere")), episodes)
