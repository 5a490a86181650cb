"""OR and AND by followed densities: one hand-computed step, simulations of known mixtures, and where they are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.ito import ReverseSDE, agreement_weights, log_density_step, mixture_weights
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.superposed import Track, superpose
from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.policies.sampling import FlowEuler


def test_one_step_of_and_by_hand() -> None:
    eps = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    u, du = 2.0, 0.1
    n = (2 * u * du) ** 0.5 * torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    weights = agreement_weights(eps, n, du)
    assert weights[0].tolist() == pytest.approx([1.606797, -0.606797], abs=1e-6)
    dy = -2 * du * (weights[0] @ eps[:, 0])[None] + n
    assert dy[0].tolist() == pytest.approx([-0.005132, -0.005132], abs=1e-6)
    rises = [log_density_step(dy, member, u, du).item() for member in eps]
    assert rises == pytest.approx([-0.047434, -0.047434], abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_and_makes_all_densities_rise_alike(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    eps, n = (torch.randn(*shape, 12, generator=generator).double() for shape in ((count, 7), (7,)))
    weights = agreement_weights(eps, n, 0.1)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(7).double())
    dy = -0.2 * torch.einsum("bm,mbn->bn", weights, eps) + n
    rises = torch.stack([log_density_step(dy, member, 2.0, 0.1) for member in eps])
    torch.testing.assert_close(rises, rises[:1].expand(count, -1), atol=1e-6, rtol=0)


def test_members_that_agree_are_weighed_evenly() -> None:
    same = torch.randn(1, 4, 6).expand(3, -1, -1)
    torch.testing.assert_close(agreement_weights(same, torch.randn(4, 6), 0.1), torch.full((4, 3), 1 / 3))
    twice = torch.cat([same[:2], torch.randn(1, 4, 6)])
    assert agreement_weights(twice, torch.randn(4, 6), 0.1).isfinite().all()


@pytest.mark.parametrize(
    ("temperature", "prior", "expected"),
    [
        (1.0, (0.5, 0.5), (0.377541, 0.622459)),
        (5.0, (0.5, 0.5), (0.075858, 0.924142)),
        (1.0, (0.8, 0.2), (0.708125, 0.291875)),
    ],
)
def test_weights_of_or(temperature: float, prior: tuple[float, float], expected: tuple[float, float]) -> None:
    weights = mixture_weights(torch.tensor([[-3.2, -2.7]]), torch.tensor(prior).log(), temperature)
    assert weights[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_levels_run_from_the_largest_to_zero() -> None:
    levels = ReverseSDE(steps=400).levels()
    assert len(levels) == 401
    assert levels[[0, -2, -1]].tolist() == pytest.approx([80.0, 0.002, 0.0])
    assert levels[1].item() == pytest.approx(
        (80 ** (1 / 7) + (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 399) ** 7, rel=1e-12
    )


@pytest.mark.parametrize(
    ("prior", "share", "tolerance"), [((0.8, 0.2), 0.201, 0.012), ((0.5, 0.5), 0.497, 0.015)]
)
def test_or_keeps_both_modes_at_the_rates_of_the_prior(
    gaussian: Callable, seen: dict[str, Tensor], prior: tuple[float, float], share: float, tolerance: float
) -> None:
    members = [gaussian(-2.0, 0.25), gaussian(2.0, 0.25)]
    policy = superpose(members, "or", prior=prior, sampler=ReverseSDE(steps=400))
    chunks = policy.sample(seen, samples=20_000).flatten()
    right = chunks > 0
    assert right.float().mean().item() == pytest.approx(share, abs=tolerance)
    assert chunks[right].std().item() == pytest.approx(0.505, abs=0.015)
    assert chunks[~right].std().item() == pytest.approx(0.505, abs=0.015)
    convex = compose(members, sampler=FlowEuler(steps=50)).sample(seen, samples=2000).flatten()
    assert convex.abs().mean().item() < 1.0  # between the modes, where neither member would go


def test_or_of_flows_with_other_normalisers_is_the_same(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    def chunks(other: Any) -> Tensor:
        policy = superpose([gaussian(-2.0, 0.25), other], "or", sampler=ReverseSDE(steps=150))
        return policy.sample(seen, samples=500)

    moved = gaussian(2.0, 0.25, offset=1.5, scale=0.4)
    torch.testing.assert_close(chunks(moved), chunks(gaussian(2.0, 0.25)), atol=2e-3, rtol=0)


def test_and_finds_what_both_can_agree_on(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    sides = [gaussian(torch.tensor([[side, 0.0]]), 0.25, width=2) for side in (1.5, -1.5)]
    policy = superpose(sides, "and", sampler=ReverseSDE(steps=400))
    chunks = policy.sample(seen, samples=20_000).view(-1, 2)
    assert chunks.mean(dim=0).tolist() == pytest.approx([0.0, 0.0], abs=0.02)
    assert chunks[:, 0].std().item() == pytest.approx(0.003, abs=0.002)
    assert chunks[:, 1].std().item() == pytest.approx(0.503, abs=0.015)


@pytest.mark.parametrize(("steps", "rms", "mean"), [(200, 0.96, 0.36), (400, 0.64, 0.18)])
def test_the_error_of_followed_densities(
    gaussian: Callable, seen: dict[str, Tensor], steps: int, rms: float, mean: float
) -> None:
    policy, count = superpose([gaussian(0.0, 0.25, width=2)], "or"), 20_000
    start = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(1))
    condition = policy.encode(seen).repeat(count)
    end = policy.draw_normalized(condition, (count, 1, 2), ReverseSDE(steps=steps), noise=start)
    assert isinstance(condition.track, Track)

    def log_normal(x: Tensor, variance: float) -> Tensor:
        return -(x.square().sum(dim=(1, 2)) / variance).double() / 2 - torch.log(
            torch.tensor(variance).double()
        )

    exact = log_normal(end, 0.25) - log_normal(80 * start, 0.25 + 80**2)
    error = condition.track.log_density[:, 0] - exact
    assert error.square().mean().sqrt().item() == pytest.approx(rms, rel=0.06)
    assert error.mean().item() == pytest.approx(mean, abs=0.03)


def test_a_superposition_is_a_member_of_a_composition(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    either = superpose([gaussian(-2.0, 0.25), gaussian(2.0, 0.25)], "or", sampler=ReverseSDE(steps=150))
    same = compose([either, either], (0.5, 0.5))
    assert same.sampler == ReverseSDE(steps=150)
    chunks, noise = same.sample(seen, samples=200), None
    torch.testing.assert_close(chunks, either.sample(seen, samples=200, noise=noise), atol=1e-4, rtol=0)


def test_members_beside_a_superposition_are_drawn_by_its_sampler(
    gaussian: Callable, seen: dict[str, Tensor]
) -> None:
    either = superpose([gaussian(-2.0, 0.25), gaussian(2.0, 0.25)], "or", sampler=ReverseSDE(steps=150))
    for others in ([gaussian(0.0, 1.0), either], [gaussian(0.0, 1.0), compose([either])]):
        policy = compose(others, (0.0001, 0.9999))
        assert policy.sampler == ReverseSDE(steps=150)
        assert policy.sample(seen, samples=20).abs().mean().item() == pytest.approx(2.0, abs=0.4)


def test_a_prefix_is_held(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    policy = superpose([gaussian(-2.0, 0.25, horizon=3), gaussian(2.0, 0.25, horizon=3)], "or")
    chunks = policy.sample(seen, samples=50, prefix=torch.full((1, 1, 1), 0.7), sampler=ReverseSDE(steps=100))
    assert (chunks[:, :, 0] == 0.7).all()
    assert torch.equal(chunks[0, :, 1].sign(), chunks[0, :, 2].sign())


def test_densities_are_followed_by_one_sampler_only(gaussian: Callable, seen: dict[str, Tensor]) -> None:
    policy = superpose([gaussian(-2.0, 0.25), gaussian(2.0, 0.25)], "and")
    with pytest.raises(ConfigError, match="AND follows densities along the reverse diffusion"):
        policy.sample(seen, sampler=FlowEuler())
    with pytest.warns(UserWarning, match="AND in 20 steps: followed densities are mostly noise"):
        policy.sample(seen, sampler=ReverseSDE(steps=20))


def test_impossible_superpositions_are_refused(gaussian: Callable) -> None:
    pair = [gaussian(-2.0, 0.25), gaussian(2.0, 0.25)]
    with pytest.raises(ConfigError, match="unknown operator 'xor'"):
        superpose(pair, "xor")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="one positive share for each of 2 members"):
        superpose(pair, "or", prior=(1.0, 0.0))
    with pytest.raises(SpecError, match=r"chunks are \[1, 3\] long"):
        superpose([pair[0], Part(gaussian(0.0, 1.0, horizon=3))], "or")
    with pytest.raises(ConfigError, match="steps must be at least 2"):
        ReverseSDE(steps=1)
