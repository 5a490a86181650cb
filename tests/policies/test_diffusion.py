from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig, DiffusionPolicy
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.network import Features
from sensorimotor.policies.path import grid, levels
from sensorimotor.policies.sampling import DDIM, FlowEuler, FlowHeun, generate

CONFIG = DiffusionConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=2),
    trunk=MLPConfig(width=16, depth=1, step_width=8),
)
PREDICTIONS = ["epsilon", "sample", "v_prediction"]


class Exact(torch.nn.Module):
    """The perfect network for actions that are N(mean, variance); remembers what it was asked."""

    def __init__(self, prediction: str, mean: float = 0.3, variance: float = 0.04) -> None:
        super().__init__()
        self.prediction, self.mean, self.variance = prediction, mean, variance
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        self.asked.append((x, step))
        alphas, sigmas = (torch.tensor(level) for level in levels("squaredcos_cap_v2", 100))
        k = step.round().long()
        alpha, sigma = alphas[k].view(-1, 1, 1), sigmas[k].view(-1, 1, 1)
        offset, variance = x - alpha * self.mean, alpha**2 * self.variance + sigma**2
        noise, action = sigma * offset / variance, self.mean + alpha * self.variance * offset / variance
        answer = {"epsilon": noise, "sample": action, "v_prediction": alpha * noise - sigma * action}
        return answer[self.prediction].to(x)


@pytest.fixture
def perfect(episodes: Episodes) -> Callable[..., DiffusionPolicy]:
    def build(prediction: str = "epsilon", **law: float) -> DiffusionPolicy:
        policy = make_policy(replace(CONFIG, prediction=prediction), episodes)  # pyright: ignore
        assert isinstance(policy, DiffusionPolicy)
        policy.trunk = Exact(prediction, **law)
        return policy

    return build


def condition_of(policy: DiffusionPolicy, rows: int) -> Features:
    return policy.encode({"state": torch.zeros(rows, 1, 2), "environment": torch.zeros(rows, 1, 3)})


@pytest.mark.parametrize("k", [0, 10, 50, 98, 99])
@pytest.mark.parametrize("per_row", [False, True])
def test_on_the_grid_the_network_is_asked_at_its_own_step_with_unit_variance(
    perfect: Callable, k: int, per_row: bool
) -> None:
    policy = perfect()
    s, x = grid("squaredcos_cap_v2", 100)[k], torch.randn(3, 4, 2)
    policy.predict_noise(x, s.expand(3) if per_row else s, condition_of(policy, 3))
    asked, step = policy.trunk.asked[0]
    assert (step == k).all()
    alpha, sigma = levels("squaredcos_cap_v2", 100)
    torch.testing.assert_close(asked, x * float(alpha[k] + sigma[k]), atol=1e-5, rtol=1e-5)


def test_between_steps_the_network_is_asked_between_them(perfect: Callable) -> None:
    policy = perfect()
    positions = grid("squaredcos_cap_v2", 100)
    policy.predict_noise(torch.zeros(1, 4, 2), (positions[20] + positions[21]) / 2, condition_of(policy, 1))
    assert policy.trunk.asked[0][1].item() == pytest.approx(20.5, abs=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("k", [5, 30, 60, 90])
def test_both_questions_have_the_exact_answer_whatever_the_network_predicts(
    perfect: Callable, gaussian: Callable, prediction: str, k: int
) -> None:
    policy, truth = perfect(prediction), gaussian(0.3, 0.04)
    s, condition = grid("squaredcos_cap_v2", 100)[k], condition_of(policy, 64)
    x = (1 - s) * (0.3 + 0.1 * torch.randn(64, 4, 2)) + s * torch.randn(64, 4, 2)
    torch.testing.assert_close(
        policy.predict_noise(x, s, condition), truth.predict_noise(x, s, None), atol=1e-4, rtol=1e-4
    )
    exact = truth.predict_velocity(x, s, None)
    torch.testing.assert_close(policy.predict_velocity(x, s, condition), exact, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_velocity_at_pure_noise_is_finite_and_points_at_an_action_in_range(
    perfect: Callable, prediction: str
) -> None:
    policy = perfect(prediction)
    x = torch.randn(5, 4, 2)
    action = x - policy.predict_velocity(x, torch.tensor(1.0), condition_of(policy, 5))
    assert torch.isfinite(action).all()
    assert action.abs().max().item() <= 1 + 1e-2


def test_without_a_clip_the_derived_action_is_free(episodes: Episodes) -> None:
    free = make_policy(replace(CONFIG, clip=None, sampler=DDIM(clip=None)), episodes)
    assert isinstance(free, DiffusionPolicy)
    free.trunk = Exact("epsilon", mean=3.0)
    s = grid("squaredcos_cap_v2", 100)[50]
    x = torch.full((1, 4, 2), float(1 - s) * 3.0)
    noise, velocity = (f(x, s, condition_of(free, 1)) for f in (free.predict_noise, free.predict_velocity))
    torch.testing.assert_close(noise - velocity, torch.full((1, 4, 2), 3.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", [DDIM(), FlowEuler(), FlowEuler(steps=30), FlowHeun(steps=10)], ids=str)
def test_samples_of_a_perfect_network_have_the_law_it_knows(
    perfect: Callable, prediction: str, sampler: object
) -> None:
    policy = perfect(prediction, mean=0.3, variance=0.04)
    x = generate(policy, condition_of(policy, 500), (500, 4, 2), sampler)  # pyright: ignore
    assert x.mean().item() == pytest.approx(0.3, abs=0.03)
    assert x.std().item() == pytest.approx(0.2, rel=0.35)


def test_the_default_sampler_is_a_plain_loop_over_diffusers(episodes: Episodes) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    policy = make_policy(CONFIG, episodes).eval()
    assert isinstance(policy, DiffusionPolicy)
    for p in policy.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
    observation = {"state": torch.randn(3, 1, 2), "environment": torch.randn(3, 1, 3)}
    noise = torch.randn(3, 1, 4, 2)
    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(10)
    x, features = noise[:, 0], policy.encode(observation).values
    with torch.no_grad():
        for k in scheduler.timesteps:
            x = scheduler.step(policy.trunk(x, k.float().expand(3), features), int(k), x).prev_sample  # pyright: ignore
    expected = policy.normalizer.unnormalize("action", x)
    torch.testing.assert_close(policy.sample(observation, noise=noise)[:, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_zero_for_a_network_that_knows_the_answer(episodes: Episodes, prediction: str) -> None:
    policy = make_policy(replace(CONFIG, prediction=prediction), episodes)  # pyright: ignore
    assert isinstance(policy, DiffusionPolicy)
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    action = policy.normalizer.normalize("action", batch.action)
    alphas, sigmas = (torch.tensor(level, dtype=torch.float32) for level in levels("squaredcos_cap_v2", 100))
    steps = []

    class Oracle(torch.nn.Module):
        def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
            steps.extend(step.tolist())
            alpha, sigma = alphas[step.long()].view(-1, 1, 1), sigmas[step.long()].view(-1, 1, 1)
            noise = (x - alpha * action) / sigma
            answer = {"epsilon": noise, "sample": action, "v_prediction": alpha * noise - sigma * action}
            return answer[prediction]

    policy.trunk = Oracle()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        assert policy(batch, generator).item() < 1e-6
    assert set(steps) == set(range(100))  # every noise level is trained


def test_a_network_that_says_nothing_has_the_loss_of_the_noise_itself(episodes: Episodes) -> None:
    policy = make_policy(CONFIG, episodes)
    for p in policy.parameters():
        torch.nn.init.zeros_(p)
    batch = Windows(episodes, policy.spec).batch(np.zeros(4000, dtype=np.int64))
    assert policy(batch, torch.Generator().manual_seed(0)).item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_steps": 1}, "train_steps must be at least 2"),
        ({"beta_schedule": "cosine"}, "unknown beta_schedule 'cosine'"),
        ({"prediction": "epsilo"}, "did you mean 'epsilon'"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"normalizer": NormalizerConfig(action="mean_std")}, "clip 1.0 cuts actions off"),
        (
            {"normalizer": NormalizerConfig(action="mean_std"), "clip": None, "sampler": DDIM(clip=1.0)},
            "set clip and sampler.clip to none",
        ),
    ],
)
def test_impossible_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(**wrong)


def test_unbounded_actions_are_fine_without_a_clip() -> None:
    config = DiffusionConfig(
        normalizer=NormalizerConfig(action="mean_std"), clip=None, sampler=DDIM(clip=5.0)
    )
    assert config.sampler == DDIM(clip=5.0)
