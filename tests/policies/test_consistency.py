"""Jumps along a teacher's way: what is asked of the network, what it learns, and how it is sampled."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.windows import Batch, Windows
from sensorimotor.policies import consistency
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.consistency import (
    ConsistencyConfig,
    ConsistencyJump,
    ConsistencyPolicy,
    draw_bins,
    pseudo_huber,
)
from sensorimotor.policies.edm import boundary_scaling, noise_levels
from sensorimotor.policies.factory import build_policy, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import DDIM, FlowEuler, Trace
from sensorimotor.policies.transformer import TransformerConfig
from sensorimotor.policies.trunk import TrunkConfig
from sensorimotor.policies.unet import UNetConfig

CONFIG = ConsistencyConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=1),
    trunk=MLPConfig(width=32, depth=1, step_width=8),
    sampler=ConsistencyJump(clip=None),
)
IDENTITY = {key: (torch.zeros(1), torch.ones(1)) for key in ("state", "action")}
SEEN = {"state": torch.zeros(3, 1, 1)}
NOISE = torch.randn(3, 2, 4, 1, generator=torch.Generator().manual_seed(7))


class Spy(nn.Module):
    """A trunk that remembers what it was asked and answers with a function of it."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor] = lambda x, step: x) -> None:
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        self.asked.append((x, step, condition))
        return self.answer(x, step)


def knows(point: float) -> Spy:
    """The network of a policy that has only one action: g(x, t, s) is that action whatever x, t and s."""

    def answer(x: Tensor, step: Tensor) -> Tensor:
        t = torch.exp(step.double() / 250)
        skip, out, scale = (c.float().reshape(-1, 1, 1) for c in boundary_scaling(t, 0.5))
        return (point - skip * x / scale) / out.clamp_min(1e-12)

    return Spy(answer)


def student_of(teacher: GenerativePolicy, config: ConsistencyConfig = CONFIG) -> ConsistencyPolicy:
    policy = build_policy(config, teacher.spec, Normalizer(IDENTITY))
    assert isinstance(policy, ConsistencyPolicy)
    policy.learn_from(teacher)
    return policy.eval()


def batch(action: Tensor) -> Batch:
    rows = action.shape[:2]
    return Batch({"state": torch.zeros(rows[0], 1, 1)}, action, torch.ones(rows, dtype=torch.bool))


@pytest.fixture
def point(gaussian: Callable) -> ConsistencyPolicy:
    """A student that knows its teacher's one action, 0.3."""
    policy = student_of(gaussian(0.3, 0.0, horizon=4))
    policy.trunk = knows(0.3)
    return policy


# What the release does differently, and why this does not.


def test_the_loss_grows_with_the_error_and_not_with_its_square(point: ConsistencyPolicy) -> None:
    delta = 0.00054 * np.sqrt(160)
    assert delta == pytest.approx(0.0068305, abs=1e-7)
    error = torch.tensor(0.1)
    assert pseudo_huber(error, delta).item() == pytest.approx(0.093402, abs=1e-6)
    released = pseudo_huber(error**2, delta)  # the error squared twice
    assert released.item() == pytest.approx(0.005280, abs=1e-6)
    assert point.delta == pytest.approx(0.00054 * 2)


def test_sampling_begins_at_the_noise_that_training_shows(point: ConsistencyPolicy) -> None:
    point.sample(SEEN, samples=2, noise=NOISE)
    ((x, step, _),) = point.trunk.asked  # pyright: ignore[reportGeneralTypeIssues]
    # Noise of level 80 reaches the network at unit scale; unit noise said to be of level 80 would arrive as 0.0125.
    torch.testing.assert_close(x, NOISE.flatten(0, 1), rtol=1e-4, atol=0)
    assert step.item() == pytest.approx(250 * np.log(80))


def test_further_jumps_start_from_the_levels_of_their_bins(point: ConsistencyPolicy) -> None:
    sampler = ConsistencyJump(steps=3, chain=(27, 54), clip=None)
    assert sampler.levels(80) == pytest.approx([80.0, 12.01478, 0.88502], rel=1e-5)  # not 27 and 54
    chunk = point.sample(SEEN, samples=2, noise=NOISE, sampler=sampler)
    torch.testing.assert_close(chunk, torch.full_like(chunk, 0.3))
    levels = [torch.exp(step / 250).item() for _, step, _ in point.trunk.asked]  # pyright: ignore
    assert levels == pytest.approx(sampler.levels(80), rel=1e-4)
    # Every network call is shown the action with fresh noise of its level.
    noises = []
    for level, (x, _, _) in zip(levels[1:], point.trunk.asked[1:], strict=True):  # pyright: ignore
        noises.append((x / boundary_scaling(torch.tensor(level), 0.5)[2] - 0.3) / level)
        assert noises[-1].std().item() == pytest.approx(1.0, abs=0.4)
    assert not torch.allclose(noises[0], NOISE.flatten(0, 1), atol=0.1)
    assert not torch.allclose(noises[0], noises[1], atol=0.1)


def test_jumps_without_a_chain_start_in_the_less_noisy_half() -> None:
    levels = noise_levels(80)
    for steps, bins in ((1, [0]), (2, [0, 59]), (3, [0, 53, 66]), (5, [0, 47, 55, 63, 71])):
        assert ConsistencyJump(steps=steps).levels(80) == levels[bins].tolist()
    assert len(ConsistencyJump(steps=9).levels(2)) == 9


def test_every_bin_is_a_real_one() -> None:
    t, u, s = draw_bins(200_000, 80, torch.Generator().manual_seed(0))
    assert (t.min().item(), t.max().item()) == (0, 78)
    assert torch.equal(u, t + 1)
    assert (s >= u).all()
    assert s.max().item() == 79  # never 80, which is none
    assert sorted(s[t == 76].unique().tolist()) == [77, 78, 79]
    shares = torch.bincount(s[t == 70] - 71) / (t == 70).sum()
    torch.testing.assert_close(shares, torch.full((9,), 1 / 9), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.bincount(t) / len(t), torch.full((79,), 1 / 79), atol=0.002, rtol=0)


# The loss.


def test_a_student_that_knows_the_one_action_has_no_loss(point: ConsistencyPolicy) -> None:
    action = torch.full((256, 4, 1), 0.3)
    condition = point.encode({"state": torch.zeros(256, 1, 1)})
    error = point._inconsistency(action, condition, condition, torch.Generator().manual_seed(0))
    assert error.max().item() < 1e-3


class Normal(nn.Module):
    """The exact jump between levels for actions that are N(0, 0.25), scaled by a parameter."""

    def __init__(self, answers: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.answers = answers

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        return self.gain * self.answers(x)


def test_the_loss_of_the_exact_jump_is_the_teachers_error_alone(
    gaussian: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = student_of(gaussian(0.0, 0.25, horizon=4), replace(CONFIG, denoising=0.0))

    def exact(network: Any, x: Tensor, t: Tensor, s: Tensor, data_std: float) -> Tensor:
        ratio = torch.sqrt((0.25 + s**2) / (0.25 + t**2))
        return ratio.view(-1, 1, 1) * x if ratio.ndim else ratio * x

    generator = torch.Generator().manual_seed(0)
    action = 0.5 * torch.randn(512, 4, 1, generator=generator)
    untrained = student(batch(action), generator).item()
    monkeypatch.setattr(consistency, "jump", exact)
    assert student(batch(action), generator).item() < 1e-4 < 0.02 < untrained


def test_gradients_pass_through_the_held_weights_but_never_into_them(
    gaussian: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With F = gain c_in x, a jump multiplies x by M(t, s); reached = M_now(t, s) M_held(s, end) x.
    student = student_of(gaussian(0.0, 0.25, horizon=4), replace(CONFIG, denoising=0.0))
    network = student.trunk = Normal(lambda x: x)
    bins = tuple(torch.tensor([i]) for i in (40, 41, 60))
    monkeypatch.setattr(consistency, "draw_bins", lambda *_: bins)
    monkeypatch.setattr(consistency, "pseudo_huber", lambda error, delta: error)
    monkeypatch.setattr(consistency, "draw", lambda shape, generator, like: torch.ones(shape))
    student(batch(torch.full((1, 4, 1), 0.2)), torch.Generator()).backward()

    t, _, s = (noise_levels(80)[i] for i in bins)
    end = noise_levels(80)[-1]

    def times(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        skip, out, scale = boundary_scaling(t, 0.5)
        share = s / t
        return share + (1 - share) * (skip + out * scale), (1 - share) * out * scale

    expected = times(t, s)[1] * times(s, end)[0] * (0.2 + t)
    assert network.gain.grad is not None
    torch.testing.assert_close(network.gain.grad, expected[0])
    assert student.trunk.gain is network.gain


def test_both_ends_of_a_step_are_asked_without_dropout_but_the_student_with(gaussian: Callable) -> None:
    config = replace(CONFIG, denoising=0.0, trunk=MLPConfig(width=32, depth=1, step_width=8, dropout=0.9))
    student = student_of(gaussian(0.0, 0.25, horizon=4), config).train()
    modes: list[bool] = []
    student.trunk.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    student(batch(torch.zeros(8, 4, 1)), torch.Generator().manual_seed(0))
    assert modes.count(True) == 1
    assert modes.count(False) == 3
    assert student.trunk.training


def test_the_denoising_loss_alone_teaches_the_mean_action(gaussian: Callable) -> None:
    # Among actions of -1 and 1, what lies behind much noise is 0 on average.
    student = student_of(gaussian(0.0, 0.25, horizon=4))
    generator = torch.Generator().manual_seed(0)
    action = 2.0 * torch.randint(2, (4096, 1, 1), generator=generator).expand(-1, 4, -1) - 1
    condition = student.encode({"state": torch.zeros(4096, 1, 1)})
    losses = {}
    for value in (-1.0, 0.0, 1.0):
        student.trunk = knows(value)
        losses[value] = student._denoising_error(action, condition, torch.Generator().manual_seed(1)).mean()
    assert losses[0.0] < losses[1.0]
    assert losses[0.0] < losses[-1.0]


# As a member and under samplers.


@pytest.mark.parametrize("s", [1.0, 80 / 81, 0.5, 0.1])
def test_a_student_answers_as_any_member_of_one_action(
    point: ConsistencyPolicy, gaussian: Callable, s: float
) -> None:
    member = gaussian(0.3, 0.0, horizon=4)
    x, at = NOISE[:, 0], torch.tensor(s)
    mine, theirs = point.encode(SEEN), member.encode(SEEN)
    for ask in ("predict_noise", "predict_velocity"):
        torch.testing.assert_close(getattr(point, ask)(x, at, mine), getattr(member, ask)(x, at, theirs))
    torch.testing.assert_close(
        point.predict_noise(x, torch.full((3,), s), mine), point.predict_noise(x, at, mine)
    )


def test_a_student_runs_under_every_sampler_and_its_own_is_no_one_elses(
    point: ConsistencyPolicy, gaussian: Callable
) -> None:
    for sampler in (FlowEuler(steps=3), DDIM(steps=5)):
        chunk = point.sample(SEEN, samples=2, sampler=sampler)
        torch.testing.assert_close(chunk, torch.full_like(chunk, 0.3), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="ConsistencyJump, which belongs to another family"):
        gaussian(0.3, 0.0).sample(SEEN, sampler=ConsistencyJump())


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_trace_counts_one_evaluation_per_jump(point: ConsistencyPolicy, steps: int) -> None:
    trace = Trace()
    point.sample(SEEN, samples=2, sampler=ConsistencyJump(steps=steps), trace=trace)
    assert trace.evaluations is not None
    assert trace.evaluations.tolist() == [[steps] * 2] * 3
    assert len(point.trunk.asked) == steps  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_chunk_starts_with_the_prefix_and_the_network_is_shown_it(
    point: ConsistencyPolicy, steps: int
) -> None:
    prefix = torch.tensor([0.7, -0.9]).view(1, 2, 1).expand(3, -1, -1)
    zero = ConsistencyJump(steps=steps, temperature=0.0)
    chunk = point.sample(SEEN, samples=2, sampler=zero, prefix=prefix)
    assert torch.equal(chunk[:, :, :2], prefix[:, None].expand(-1, 2, -1, -1))
    torch.testing.assert_close(chunk[:, :, 2:], torch.full((3, 2, 2, 1), 0.3))
    held = prefix.repeat_interleave(2, dim=0)
    assert torch.equal(
        point.draw_normalized(point.encode(SEEN).repeat(2), (6, 4, 1), zero, prefix=held)[:, :2], held
    )
    for x, step, _ in point.trunk.asked:  # pyright: ignore[reportGeneralTypeIssues]
        scale = boundary_scaling(torch.exp(step / 250), 0.5)[2]
        torch.testing.assert_close(x[:, :2] / scale, held, rtol=1e-4, atol=0)


def test_actions_are_clipped_after_every_jump(gaussian: Callable) -> None:
    student = student_of(gaussian(0.0, 0.25, horizon=4))
    student.trunk = knows(3.0)
    assert student.sample(SEEN, sampler=ConsistencyJump(steps=2, clip=1.0)).eq(1.0).all()
    assert student.sample(SEEN, sampler=ConsistencyJump(clip=None)).mean().item() == pytest.approx(3.0)


def test_the_same_generator_gives_the_same_chunk_and_less_temperature_less_spread(gaussian: Callable) -> None:
    student = student_of(gaussian(0.0, 0.25, horizon=4))
    seeded = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    sampler = ConsistencyJump(steps=2, clip=None)
    draws = [student.sample(SEEN, samples=50, generator=seeded(), sampler=sampler) for _ in range(2)]
    assert torch.equal(*draws)
    cold = student.sample(SEEN, samples=50, generator=seeded(), sampler=replace(sampler, temperature=0.1))
    assert cold.std() < draws[0].std()


TRUNKS: Mapping[str, TrunkConfig] = {
    "mlp": MLPConfig(width=16, depth=1, step_width=8),
    "unet": UNetConfig(channels=(16, 32), kernel=3, step_width=8),
    "transformer": TransformerConfig(width=16, layers=1, heads=2),
}


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_every_trunk_is_told_where_to_jump(episodes: Episodes, trunk: TrunkConfig) -> None:
    chunk = ChunkConfig(observation_steps=2, horizon=4, execute=2)
    teacher = make_policy(FlowConfig(chunk=chunk, trunk=trunk), episodes)
    assert isinstance(teacher, GenerativePolicy)
    student = make_policy(replace(CONFIG, chunk=chunk, trunk=trunk), episodes, teacher=teacher)
    assert isinstance(student, ConsistencyPolicy)
    student.eval()
    windows = Windows(episodes, student.spec).batch(np.arange(4))
    condition = student.encode(windows.observation)
    asked = student._network(condition)
    x, step = torch.randn(4, 4, 2), torch.tensor(0.0)
    near, far = (asked(x, step, torch.tensor(target)) for target in (0.0, -900.0))
    assert not torch.allclose(near, far)
    loss = student(windows, torch.Generator().manual_seed(0))
    loss.backward()
    silent = [name for name, p in student.named_parameters() if p.grad is None]
    assert not silent


# Learning.


class TwoPoints(GenerativePolicy):
    """The exact policy for an action that is -0.5 or 0.5, each with the same chance."""

    def __init__(self, like: GenerativePolicy) -> None:
        super().__init__(like.spec)
        self.normalizer, self.sampler, self._like = like.normalizer, FlowEuler(), like

    def encode(self, observation: Mapping[str, Tensor]) -> Any:
        return self._like.encode(observation)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        s = s.view(-1, 1, 1) if s.ndim else s
        action = 0.5 * torch.tanh(0.5 * (1 - s) * x / s**2)
        return (x - action) / s

    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        return x + (1 - (s.view(-1, 1, 1) if s.ndim else s)) * self.predict_velocity(x, s, condition)


def test_one_jump_comes_closer_to_the_teacher_than_one_step_of_its_own(gaussian: Callable) -> None:
    teacher = TwoPoints(gaussian(0.0, 0.25))
    chunk = ChunkConfig(observation_steps=1, horizon=1, execute=1)
    student = student_of(teacher, replace(CONFIG, chunk=chunk, bins=20))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        sign = torch.randint(2, (128, 1, 1), generator=generator) - 0.5
        optimizer.zero_grad()
        student(batch(sign), generator).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    noise = torch.randn(1, 500, 1, 1, generator=generator)
    seen = {"state": torch.zeros(1, 1, 1)}
    taught = teacher.sample(seen, samples=500, noise=noise, sampler=FlowEuler(steps=100))
    jumped = student.eval().sample(seen, samples=500, noise=noise)
    stepped = teacher.sample(seen, samples=500, noise=noise, sampler=FlowEuler(steps=1))
    error, own = ((chunk - taught).square().mean().sqrt().item() for chunk in (jumped, stepped))
    assert own == pytest.approx(0.5, abs=0.01)
    assert error < own / 2
    assert (jumped > 0).float().mean().item() == pytest.approx((noise > 0).float().mean().item(), abs=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of at least 1"),
        ({"steps": 3, "chain": (40,)}, "a bin for each of the 2 jumps after the first"),
        ({"steps": 3, "chain": (40, 40)}, "increasing bins"),
        ({"steps": 2, "chain": (0,)}, "increasing bins from 1 on"),
        ({"clip": 0.0}, "clip must be positive or none"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
    ],
)
def test_impossible_jumps_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConsistencyJump(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bins": 1}, "bins must be at least 2"),
        ({"data_std": 0.0}, "data_std must be positive"),
        ({"denoising": -1.0}, "denoising must be at least 0"),
        ({"sampler": ConsistencyJump(steps=2, chain=(80,))}, r"bins 0\.\.79; chain \(80,\) leaves them"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)
