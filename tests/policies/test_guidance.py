"""Chunks that continue the one under way, against numbers by hand and policies known in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.guidance import ChunkGuide, Guidance, Pull, guidance_strength, overlap_weights
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import (
    DDIM,
    DDPM,
    DPMSolver,
    FlowEuler,
    FlowHeun,
    OwnSampler,
    SamplerConfig,
    Trace,
)

SAMPLERS = [FlowEuler(), FlowHeun(), FlowHeun(correct_last=True), DDIM(), DDPM(steps=30), DPMSolver()]
SMALL: dict[str, Any] = {
    "chunk": ChunkConfig(observation_steps=2, horizon=8, execute=4),
    "trunk": MLPConfig(width=16, depth=1, step_width=8),
}


def build(kind: type, episodes: Any, **options: Any) -> GenerativePolicy:
    policy = make_policy(kind(**SMALL, **options), episodes)
    assert isinstance(policy, GenerativePolicy)
    return policy.eval()


def observed(batch: int = 3) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    return {
        "state": torch.randn(batch, 2, 2, generator=g),
        "environment": torch.randn(batch, 2, 3, generator=g),
    }


def guide(previous: Tensor, delay: int | Tensor = 3, end: int | Tensor = 6, **options: Any) -> ChunkGuide:
    return ChunkGuide(previous=previous, delay=delay, end=end, **options)


def test_linear_and_exponential_weights_are_the_published_ones() -> None:
    linear = overlap_weights(10, 2, 6, "linear")
    torch.testing.assert_close(linear, torch.tensor([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0]))
    exp = overlap_weights(10, 2, 6, "exp")
    expected = torch.tensor([1, 1, 0.570589, 0.287072, 0.114492, 0.025770, 0, 0, 0, 0])
    torch.testing.assert_close(exp, expected, atol=1e-6, rtol=0)


def test_a_delay_beyond_the_end_is_cut_to_it() -> None:
    torch.testing.assert_close(overlap_weights(6, 5, 3, "exp"), torch.tensor([1.0, 1, 1, 0, 0, 0]))
    assert not overlap_weights(6, 2, 0, "linear").any()


def test_every_row_may_have_its_own_delay_and_end() -> None:
    rows = overlap_weights(10, torch.tensor([2, 0]), torch.tensor([6, 4]), "exp")
    torch.testing.assert_close(rows[0], overlap_weights(10, 2, 6, "exp"))
    torch.testing.assert_close(rows[1], overlap_weights(10, 0, 4, "exp"))


def test_guidance_is_strongest_at_the_ends_of_the_path() -> None:
    s = 1 - torch.arange(5) / 5  # the paper's tau = 0, 0.2 ...
    expected = torch.tensor([5, 4.25, 2.166667, 2.166667, 4.25])
    torch.testing.assert_close(guidance_strength(s, 5.0), expected, atol=1e-5, rtol=0)
    assert guidance_strength(torch.tensor(0.5), 5.0).item() == 2
    assert guidance_strength(torch.tensor(0.0), 5.0).item() == 5


@pytest.mark.parametrize(("jacobian", "expected"), [("vjp", [1.0, 2.5]), ("identity", [0.0, 2.0])])
def test_a_linear_field_is_corrected_as_by_hand(jacobian: Any, expected: list[float]) -> None:
    matrix = torch.tensor([[1, 0.5], [0, 1]])
    pull = Pull(
        target=torch.tensor([[[1.0], [0.0]]]),
        weight=torch.tensor([[[1.0], [0.0]]]),
        guidance=Guidance(beta=5.0, jacobian=jacobian),
    )
    x = torch.tensor([[[1.0], [2.0]]])
    velocity = pull.velocity(lambda y: torch.einsum("ij,bja->bia", matrix, y), x, torch.tensor(0.5))
    assert velocity.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", [FlowConfig, DiffusionConfig])
def test_a_guide_without_overlap_changes_no_bit(kind: type, sampler: SamplerConfig, episodes: Any) -> None:
    policy = build(kind, episodes)
    plain = policy.sample(observed(), samples=2, sampler=sampler)
    guided = policy.sample(
        observed(), samples=2, sampler=sampler, guide=guide(torch.ones(3, 8, 2), delay=0, end=0)
    )
    assert torch.equal(plain, guided)


@pytest.mark.parametrize("jacobian", ["vjp", "identity"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_every_sampler_is_drawn_to_the_previous_chunk(
    gaussian: Callable, sampler: SamplerConfig, jacobian: Any
) -> None:
    policy = gaussian(0.0, 0.09, horizon=8)
    seen = {"state": torch.zeros(50, 1, 1)}
    previous = torch.full((50, 8, 1), 0.4)
    chunk = policy.sample(
        seen, sampler=sampler, guide=guide(previous, beta=10.0, schedule="linear", jacobian=jacobian)
    )[:, 0, :, 0]
    error = (chunk - 0.4).abs().mean(dim=0)
    free = (policy.sample(seen, sampler=sampler)[:, 0, :, 0] - 0.4).abs().mean()
    assert (error[:3] < 0.3 * free).all()
    assert error[:3].max() < error[5] < free
    torch.testing.assert_close(
        chunk[:, 6:], policy.sample(seen, sampler=sampler)[:, 0, 6:, 0], atol=2e-4, rtol=0
    )


def test_a_diffusion_policy_is_drawn_to_the_previous_chunk_beyond_its_clip(episodes: Any) -> None:
    policy = build(DiffusionConfig, episodes)
    previous = policy.sample(observed(), noise=torch.randn(3, 1, 8, 2, generator=torch.Generator()))[:, 0]
    plain, chunk = policy.sample(observed()), policy.sample(observed(), guide=guide(previous, beta=10.0))
    distance = [(c[:, 0, :3] - previous[:, :3]).abs().mean() for c in (plain, chunk)]
    assert distance[1] < 0.2 * distance[0]


@pytest.mark.parametrize("scale", ["min_max", "mean_std"])
def test_offsets_from_the_present_observation_are_guided_in_physical_units(scale: Any, episodes: Any) -> None:
    policy = build(FlowConfig, episodes, relative="state", normalizer=NormalizerConfig(action=scale))
    seen = observed()
    previous = seen["state"][:, -1:] + torch.linspace(-0.5, 0.5, 8)[:, None]
    pulled = guide(previous, delay=8, end=8, beta=50.0, jacobian="identity")
    chunk = policy.sample(seen, guide=pulled, sampler=FlowEuler(steps=50))[:, 0]
    torch.testing.assert_close(chunk, previous, atol=0.1, rtol=0)


def test_all_samples_of_an_observation_are_guided_by_its_chunk(gaussian: Callable) -> None:
    policy = gaussian(0.0, 0.09, horizon=4)
    previous = torch.tensor([-0.5, 0.5]).view(2, 1, 1).expand(2, 4, 1)
    delay = torch.tensor([4, 0])
    chunk = policy.sample(
        {"state": torch.zeros(2, 1, 1)}, samples=20, guide=guide(previous, delay, delay.clone(), beta=10.0)
    )
    assert chunk.shape == (2, 20, 4, 1)
    torch.testing.assert_close(chunk[0], torch.full((20, 4, 1), -0.5), atol=0.15, rtol=0)
    torch.testing.assert_close(chunk[1], policy.sample({"state": torch.zeros(2, 1, 1)}, samples=20)[1])


def test_what_lies_beyond_the_end_is_not_looked_at(episodes: Any) -> None:
    policy = build(FlowConfig, episodes)
    previous = torch.zeros(3, 8, 2)
    chunk = policy.sample(observed(), guide=guide(previous))
    previous[:, 6:] = float("nan")
    assert torch.equal(chunk, policy.sample(observed(), guide=guide(previous)))


@pytest.mark.parametrize("kind", [FlowConfig, DiffusionConfig])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_guidance_needs_no_gradients_from_its_caller(kind: type, mode: Callable, episodes: Any) -> None:
    policy = build(kind, episodes)
    expected = policy.sample(observed(), guide=guide(torch.ones(3, 8, 2)))
    with mode():
        chunk = policy.sample(observed(), guide=guide(torch.ones(3, 8, 2)))
    assert torch.equal(chunk, expected)
    assert not chunk.requires_grad
    assert all(p.grad is None for p in policy.parameters())


def test_a_composition_is_guided_as_a_whole(gaussian: Callable, mixed: Callable) -> None:
    policy = mixed([gaussian(-0.3, 0.04), gaussian(0.3, 0.04)], 0.5)
    previous = torch.full((1, 1, 1), 0.25)
    chunk = policy.sample({"state": torch.zeros(1, 1, 1)}, samples=20, guide=guide(previous, 1, 1, beta=10.0))
    torch.testing.assert_close(chunk, torch.full((1, 20, 1, 1), 0.25), atol=0.12, rtol=0)


def test_network_calls_are_counted_once_each(episodes: Any) -> None:
    policy, trace = build(FlowConfig, episodes), Trace()
    policy.sample(observed(), guide=guide(torch.ones(3, 8, 2)), trace=trace)
    assert trace.evaluations is not None
    assert trace.evaluations.tolist() == [[10]] * 3


def test_samplers_without_velocity_refuse_a_guide(episodes: Any) -> None:
    class Descent(OwnSampler):
        pass

    with pytest.raises(ConfigError, match=r"Descent cannot be guided.*use DDIM"):
        build(FlowConfig, episodes).sample(observed(), sampler=Descent(), guide=guide(torch.ones(3, 8, 2)))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: guide(torch.ones(3, 7, 2)), r"has shape \(3, 7, 2\); needed is \(3, 8, 2\)"),
        (lambda: guide(torch.ones(3, 8, 2), end=9), r"end must lie in 0\.\.8, got 9"),
        (lambda: guide(torch.ones(3, 8, 2), delay=-1), r"delay must lie in 0\.\.8, got -1"),
        (lambda: guide(torch.ones(3, 8, 2), end=torch.tensor([1, 2])), "allowed is one number, or 3"),
    ],
)
def test_guides_that_do_not_fit_are_refused(wrong: Callable, told: str, episodes: Any) -> None:
    with pytest.raises(SpecError, match=told):
        build(FlowConfig, episodes).sample(observed(), guide=wrong())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"beta": float("nan")}, "beta must be positive"),
        ({"schedule": "expo"}, "did you mean 'exp'"),
        ({"jacobian": "vpj"}, "did you mean 'vjp'"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Guidance(**wrong)
