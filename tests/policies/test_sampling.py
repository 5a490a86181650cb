"""Samplers against exact members: Gaussians, points, and their convex combinations, whose samples are known."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.path import action_from_noise, grid, levels, noise_from_action, to_path
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import (
    DDIM,
    DDPM,
    DPMSolver,
    FlowEuler,
    FlowHeun,
    SamplerConfig,
    generate,
)

ALL = [
    DDPM(steps=20),
    DDIM(),
    DDIM(steps=100),
    DPMSolver(),
    FlowEuler(),
    FlowHeun(),
    FlowHeun(correct_last=True),
]


def known(policy: GenerativePolicy, rows: int) -> Any:
    """A condition of so many rows."""
    return policy.encode({"state": torch.zeros(rows, 1, 1)})


def run(policy: GenerativePolicy, sampler: SamplerConfig, start: Any) -> Tensor:
    """Samples from given starting noise, all in float64 except inside schedulers."""
    noise = torch.as_tensor(start, dtype=torch.float64).view(-1, 1, 1)
    condition = known(policy, len(noise))
    return generate(policy, condition, tuple(noise.shape), sampler, noise=noise).flatten()  # pyright: ignore


def affine(policy: GenerativePolicy, sampler: SamplerConfig) -> tuple[float, float]:
    """(G, H) of a deterministic sampler of a Gaussian policy: sample = G noise + H."""
    h, g_and_h = run(policy, sampler, [0.0, 1.0]).tolist()
    return g_and_h - h, h


@pytest.fixture
def pair(gaussian: Callable, mixed: Callable) -> Callable[[float], GenerativePolicy]:
    """N(-1, 0.25) with weight w and N(2, 1) with the rest."""
    return lambda weight: mixed([gaussian(-1.0, 0.25), gaussian(2.0, 1.0)], weight)


@pytest.mark.parametrize(
    ("weight", "steps", "gain", "shift"),
    [
        (1.0, 10, 0.435487, -0.939118),
        (0.5, 10, 0.629844, 0.127290),
        (0.3, 10, 0.726438, 0.699001),
        (0.0, 10, 0.895387, 1.749648),
        (1.0, 100, 0.492131, -0.999757),
        (0.5, 100, 0.697733, 0.161440),
        (0.3, 100, 0.801944, 0.799276),
        (0.0, 100, 0.987701, 1.999027),
    ],
)
def test_ddim_of_gaussians_is_the_known_line(
    pair: Callable, weight: float, steps: int, gain: float, shift: float
) -> None:
    assert affine(pair(weight), DDIM(steps=steps, clip=None)) == pytest.approx((gain, shift), abs=1e-5)


def test_ddim_10_of_the_even_pair_from_three_starts(pair: Callable) -> None:
    samples = run(pair(0.5), DDIM(clip=None), [0.0, 1.0, -2.0])
    assert samples.tolist() == pytest.approx([0.127290, 0.757134, -1.132397], abs=1e-5)


@pytest.mark.parametrize(("steps", "gain", "shift"), [(10, 0.621126, 0.179277), (100, 0.698007, 0.162856)])
def test_flow_euler_of_the_even_pair_is_the_known_line(
    pair: Callable, steps: int, gain: float, shift: float
) -> None:
    assert affine(pair(0.5), FlowEuler(steps=steps)) == pytest.approx((gain, shift), abs=1e-5)


@pytest.mark.parametrize(
    ("weight", "mean", "variance"),
    [(1.0, -1.0, 0.232746), (0.5, 0.006132, 0.437979), (0.3, 0.645793, 0.587974), (0.0, 2.0, 0.954609)],
)
def test_ancestral_samples_of_gaussians_have_the_known_moments(
    pair: Callable, weight: float, mean: float, variance: float
) -> None:
    count = 40_000
    generator = torch.Generator().manual_seed(0)
    policy = pair(weight)
    x = generate(policy, known(policy, count), (count, 1, 1), DDPM(clip=None), generator=generator)
    error = (variance / count) ** 0.5
    assert x.mean().item() == pytest.approx(mean, abs=5 * error)
    assert x.var().item() == pytest.approx(variance, rel=5 * (2 / count) ** 0.5)


@pytest.mark.parametrize(("weight", "std"), [(0.5, 0.707107), (0.8, 0.574349), (0.3, 0.812252)])
def test_the_exact_path_multiplies_powers_of_the_members_spreads(
    pair: Callable, weight: float, std: float
) -> None:
    assert affine(pair(weight), FlowHeun(steps=200))[0] == pytest.approx(std, abs=1e-4)


@pytest.mark.parametrize(("steps", "sample"), [(10, 0.154175), (100, 0.194979), (1000, 0.199492)])
def test_members_of_equal_spread_average_their_means(
    gaussian: Callable, mixed: Callable, steps: int, sample: float
) -> None:
    policy = mixed([gaussian(0.5, 0.04), gaussian(-0.5, 0.04)], 0.5)
    assert run(policy, FlowEuler(steps=steps), [1.0]).item() == pytest.approx(sample, abs=1e-5)


def test_members_of_unequal_spread_have_the_geometric_mean_of_it(gaussian: Callable, mixed: Callable) -> None:
    policy = mixed([gaussian(0.0, 0.01), gaussian(0.0, 0.16)], 0.5)
    assert run(policy, FlowHeun(steps=500), [1.0]).item() == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize(("corrections", "mean", "variance"), [(1, -0.147, 0.425), (5, -0.277, 0.410)])
def test_langevin_corrections_bring_the_even_pair_towards_its_product(
    pair: Callable, corrections: int, mean: float, variance: float
) -> None:
    # The product of the two densities is N(-0.4, 0.4); without corrections samples are N(0.006, 0.438).
    count = 20_000
    sampler = DDPM(clip=None, corrections=corrections)
    policy, generator = pair(0.5), torch.Generator().manual_seed(0)
    x = generate(policy, known(policy, count), (count, 1, 1), sampler, generator=generator)
    assert x.mean().item() == pytest.approx(mean, abs=5 * (variance / count) ** 0.5)
    assert x.var().item() == pytest.approx(variance, rel=5 * (2 / count) ** 0.5)


def test_corrections_keep_a_committed_prefix(pair: Callable) -> None:
    policy = pair(1.0)
    prefix = torch.full((3, 1, 1), 0.7)
    x = generate(policy, known(policy, 3), (3, 1, 1), DDIM(clip=None, corrections=2), prefix=prefix)
    assert torch.equal(x, prefix)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"corrections": -1}, "corrections must be at least 0"), ({"correction_size": 1.0}, "correction_size")],
)
def test_impossible_corrections_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DDIM(**wrong)


def test_one_composed_noise_whichever_quantity_is_mixed(gaussian: Callable, mixed: Callable) -> None:
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    s, y = sigma / (alpha + sigma), torch.full((1, 1, 1), 0.4, dtype=torch.float64) / (alpha + sigma)
    policy = mixed([gaussian(-1.0, 0.25), gaussian(2.0, 1.0)], 0.5)
    condition = known(policy, 1)
    assert policy.predict_noise(y, s, condition).item() == pytest.approx(0.259663, abs=1e-6)
    from_velocity = y + (1 - s) * policy.predict_velocity(y, s, condition)
    assert from_velocity.item() == pytest.approx(0.259663, abs=1e-6)


def test_weights_that_do_not_sum_to_one_mean_something_in_noise_only(gaussian: Callable) -> None:
    # Noise, action and variance-preserving velocity of both members added up, each turned back into noise.
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    x = torch.full((1, 1, 1), 0.4, dtype=torch.float64)
    y, s = to_path(x, alpha, sigma)
    noises = [m.predict_noise(y, s, None) for m in (gaussian(-1.0, 0.25), gaussian(2.0, 1.0))]
    actions = [action_from_noise(y, s, noise) for noise in noises]
    velocities = [alpha * n - sigma * a for n, a in zip(noises, actions, strict=True)]
    assert sum(noises).item() == pytest.approx(0.519327, abs=1e-6)  # pyright: ignore
    assert noise_from_action(y, s, sum(actions)).item() == pytest.approx(-0.034450, abs=1e-6)  # pyright: ignore
    assert (alpha * sum(velocities) + sigma * x).item() == pytest.approx(0.230402, abs=1e-6)


def test_a_member_that_scales_actions_otherwise_sits_at_another_position(gaussian: Callable) -> None:
    # Clean actions u are (u - b) / d for the member. Its noise at its own position is that of the law in u.
    alpha, sigma = (torch.tensor(level[50]) for level in levels("squaredcos_cap_v2", 100))
    b, d = 0.5, 2.0
    y, s = to_path(torch.full((1, 1, 1), 0.9, dtype=torch.float64), alpha, sigma)
    scale = s + (1 - s) * d
    theirs, position = (y - (1 - s) * b) / scale, s / scale
    assert (float(position), float(theirs)) == pytest.approx((0.343069, 0.263230), abs=1e-6)
    for law, point, where in ((gaussian(1.0, 0.64), y, s), (gaussian(0.25, 0.16), theirs, position)):
        assert law.predict_noise(point, where, None).item() == pytest.approx(0.181867, abs=1e-6)


@pytest.mark.parametrize(
    ("sampler", "sample"),
    [
        (FlowEuler(steps=1), 0.5),
        (FlowEuler(steps=2), 0.538462),
        (FlowEuler(steps=5), 0.613881),
        (FlowEuler(steps=10), 0.654175),
        (FlowEuler(steps=100), 0.694979),
        (FlowHeun(steps=2, correct_last=True), 0.789571),
        (FlowHeun(steps=5, correct_last=True), 0.712914),
        (FlowHeun(steps=2), 0.539941),
        (FlowHeun(steps=5), 0.631024),
    ],
)
def test_steps_along_the_velocity_of_one_gaussian(
    gaussian: Callable, sampler: SamplerConfig, sample: float
) -> None:
    assert run(gaussian(0.5, 0.04), sampler, [1.0]).item() == pytest.approx(sample, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "s", "velocity"), [(0.8, 0.5, 0.515385), (1.2, 1.0, 0.7), (0.5, 0.1, -0.424528)]
)
def test_the_exact_velocity_is_the_published_one(
    gaussian: Callable, x: float, s: float, velocity: float
) -> None:
    point = torch.full((1, 1, 1), x, dtype=torch.float64)
    answer = gaussian(0.5, 0.04).predict_velocity(point, torch.tensor(s, dtype=torch.float64), None)
    assert answer.item() == pytest.approx(velocity, abs=1e-6)


def test_the_exact_noise_and_score_at_one_point(gaussian: Callable) -> None:
    point, s = torch.full((1, 1, 1), 0.8, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    noise = gaussian(0.5, 0.04).predict_noise(point, s, None).item()
    action = noise - gaussian(0.5, 0.04).predict_velocity(point, s, None).item()
    assert (noise, action, -noise / 0.5) == pytest.approx((1.057692, 0.542308, -2.115385), abs=1e-6)


def test_at_pure_noise_the_velocity_points_away_from_the_mean(gaussian: Callable) -> None:
    # A network trained in data time would answer with the opposite sign.
    point = torch.full((1, 1, 1), 0.3)
    answer = gaussian(0.5, 0.04).predict_velocity(point, torch.tensor(1.0), None)
    assert answer.item() == pytest.approx(0.3 - 0.5, abs=1e-6)


@pytest.mark.parametrize("sampler", [FlowEuler(steps=1), FlowEuler(steps=3), FlowEuler(steps=10)])
def test_euler_lands_on_a_point_exactly(gaussian: Callable, sampler: SamplerConfig) -> None:
    samples = run(gaussian(0.3, 0.0), sampler, [-2.0, 0.0, 1.7])
    assert samples.tolist() == pytest.approx([0.3] * 3, abs=1e-6)


@pytest.mark.parametrize(
    "sampler", ALL[:-1], ids=str
)  # the last asks at s = 0, where this velocity is infinite
def test_every_sampler_finds_a_point_from_any_noise(gaussian: Callable, sampler: SamplerConfig) -> None:
    samples = run(gaussian(0.3, 0.0), sampler, [-2.0, 0.0, 1.7])
    assert samples.tolist() == pytest.approx([0.3] * 3, abs=1e-4)


@pytest.mark.parametrize("sampler", ALL, ids=str)
def test_every_sampler_reaches_the_mean_and_most_of_the_spread(
    gaussian: Callable, sampler: SamplerConfig
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = generate(gaussian(0.2, 0.04), None, (20_000, 1, 1), sampler, generator=generator)
    assert x.mean().item() == pytest.approx(0.2, abs=0.02)
    assert x.std().item() == pytest.approx(0.2, rel=0.4)


@pytest.mark.parametrize("kind", [DDIM, DPMSolver, FlowEuler, FlowHeun])
def test_more_steps_come_closer_to_the_exact_path(gaussian: Callable, kind: type) -> None:
    options: dict[str, Any] = {"clip": None} if kind in (DDIM, DPMSolver) else {}
    policy = gaussian(0.0, 0.04)
    errors = [abs(affine(policy, kind(steps=n, **options))[0] - 0.2) for n in (5, 10, 20, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_ddim_is_euler_on_the_schedules_own_positions(pair: Callable) -> None:
    policy, ks = pair(0.5), list(range(90, -1, -10))
    alpha, sigma = levels("squaredcos_cap_v2", 100)
    positions = torch.cat([grid("squaredcos_cap_v2", 100)[ks].double(), torch.zeros(1)])
    total = alpha[90] + sigma[90]
    assert 1 / total == pytest.approx(0.884971, abs=1e-6)
    y = torch.tensor([0.0, 1.0], dtype=torch.float64).view(-1, 1, 1) / total
    for s, after in itertools.pairwise(positions):
        y = y + (after - s) * policy.predict_velocity(y, s, known(policy, 2))
    torch.testing.assert_close(y.flatten(), run(policy, DDIM(clip=None), [0.0, 1.0]), atol=1e-6, rtol=1e-5)


class Constant(GenerativePolicy):
    """Answers -1 whatever it is asked, and remembers where it was asked."""

    def __init__(self, template: GenerativePolicy) -> None:
        super().__init__(template.spec)
        self.asked: list[tuple[float, Tensor]] = []

    def encode(self, observation: Any) -> None:
        return None

    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        self.asked.append((float(s), x))
        return torch.full_like(x, -1.0)

    predict_velocity = predict_noise


@pytest.mark.parametrize(
    ("sampler", "positions"),
    [
        (DDIM(), [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]),
        (DDIM(steps=4), [75, 50, 25, 0]),
        (DDPM(steps=5), [80, 60, 40, 20, 0]),
    ],
)
def test_schedulers_ask_exactly_at_training_steps(
    gaussian: Callable, sampler: SamplerConfig, positions: list[int]
) -> None:
    policy = Constant(gaussian(0.0, 1.0))
    run(policy, sampler, [0.5])
    assert [s for s, _ in policy.asked] == grid("squaredcos_cap_v2", 100)[positions].tolist()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_flow_steps_have_equal_length(gaussian: Callable, steps: int) -> None:
    policy = Constant(gaussian(0.0, 1.0))
    sample = run(policy, FlowEuler(steps=steps), [0.5])
    assert [s for s, _ in policy.asked] == pytest.approx([1 - i / steps for i in range(steps)], abs=1e-6)
    assert sample.item() == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize(("clip", "mean"), [(None, 0.552458), (1.0, 0.519848)])
def test_one_ancestral_step_has_the_posterior_mean_and_spread(
    gaussian: Callable, clip: float | None, mean: float
) -> None:
    from sensorimotor.policies.sampling import _plan

    sampler = DDPM(clip=clip)
    scheduler = _plan(sampler).scheduler
    x, noise = torch.full((200_000, 1, 1), 0.5), torch.full((200_000, 1, 1), -1.0)
    generator = torch.Generator().manual_seed(0)
    after = scheduler.step(noise, 50, x, generator=generator).prev_sample
    assert after.mean().item() == pytest.approx(mean, abs=5 * 0.174941 / 200_000**0.5)
    assert after.std().item() == pytest.approx(0.174941, rel=0.01)


def test_predicted_actions_stay_inside_the_clip(gaussian: Callable) -> None:
    wide = gaussian(3.0, 0.01)
    for sampler in (DDIM(clip=0.5), DDPM(steps=20, clip=0.5), DPMSolver(clip=0.5)):
        assert run(wide, sampler, [-1.0, 0.0, 1.0]).abs().max().item() <= 0.5 + 1e-5
    assert run(wide, DDIM(clip=None), [0.0]).item() > 2


def test_many_clipped_ddim_steps_recompute_the_noise(gaussian: Callable) -> None:
    # Without recomputing, 100 clipped steps of a policy that leaves the clip end far from 10 steps of the same.
    policy = gaussian(0.95, 0.09)
    noise = torch.linspace(-2, 2, 41)
    few, many = run(policy, DDIM(), noise), run(policy, DDIM(steps=100), noise)
    assert (few - many).abs().max().item() < 0.2
    assert (many.diff() >= -1e-6).all()


@pytest.mark.parametrize("sampler", ALL, ids=str)
def test_equal_noise_gives_equal_samples_whatever_was_sampled_before(
    gaussian: Callable, sampler: SamplerConfig
) -> None:
    policy = gaussian(0.1, 0.3)
    first, other, again = (
        generate(policy, None, (4, 3, 1), sampler, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 6, 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sampler", [DPMSolver(steps=30), FlowEuler(steps=30)], ids=str)
def test_samplers_with_a_memory_keep_threads_apart(gaussian: Callable, sampler: SamplerConfig) -> None:
    policy = gaussian(0.1, 0.3)
    starts = [torch.full((1, 1, 1), 0.1 * i) for i in range(6)]
    alone = [generate(policy, None, (1, 1, 1), sampler, noise=x) for x in starts]
    together: dict[int, Tensor] = {}

    def work(i: int) -> None:
        together[i] = generate(policy, None, (1, 1, 1), sampler, noise=starts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[i], alone[i]) for i in range(6))


def test_without_a_generator_sampling_neither_reads_nor_moves_the_global_one(gaussian: Callable) -> None:
    policy = gaussian(0.0, 1.0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(policy, None, (2, 1, 1), DDPM(steps=5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(generate(policy, None, (2, 1, 1), DDPM(steps=5)), first)


def test_temperature_scales_the_first_noise(gaussian: Callable) -> None:
    policy = gaussian(0.5, 0.04)
    cold = run(policy, FlowEuler(temperature=0.5), [1.0])
    torch.testing.assert_close(cold, run(policy, FlowEuler(), [0.5]))


@pytest.mark.parametrize("sampler", ALL, ids=str)
def test_chunks_start_with_the_prefix_and_the_rest_is_asked_with_it_in_place(
    gaussian: Callable, sampler: SamplerConfig
) -> None:
    policy = Constant(gaussian(0.0, 1.0, horizon=4))
    noise = torch.randn(2, 4, 1, generator=torch.Generator().manual_seed(0))
    prefix = torch.tensor([[[0.3], [-0.4]], [[0.1], [0.2]]])
    x = generate(policy, None, (2, 4, 1), sampler, noise=noise, prefix=prefix)
    assert torch.equal(x[:, :2], prefix)
    for s, asked in policy.asked:
        torch.testing.assert_close(asked[:, :2], (1 - s) * prefix + s * noise[:, :2], atol=1e-5, rtol=1e-5)


def test_gradients_are_off_while_sampling(gaussian: Callable) -> None:
    policy = Constant(gaussian(0.0, 1.0))
    policy.weight = torch.nn.Parameter(torch.ones(()))
    seen = []
    policy.predict_noise = lambda x, s, c: seen.append(torch.is_grad_enabled()) or x * policy.weight  # type: ignore
    x = generate(policy, None, (1, 1, 1), DDIM())
    assert not any(seen)
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (DDIM, {"steps": 0}, "steps of at least 1, got 0"),
        (DDIM, {"steps": 101}, "101 steps on a schedule of 100"),
        (DPMSolver, {"steps": 100}, "use 1..99"),
        (DDPM, {"beta_schedule": "squaredcos"}, "did you mean 'squaredcos_cap_v2'"),
        (DDPM, {"clip": 0.0}, "clip must be positive"),
        (DDIM, {"steps": 1, "train_steps": 1}, "schedule of at least 2"),
        (FlowEuler, {"steps": 0}, "steps of at least 1"),
        (FlowEuler, {"temperature": -1.0}, "temperature must be at least 0"),
        (FlowHeun, {"temperature": float("nan")}, "temperature must be at least 0"),
    ],
)
def test_impossible_samplers_are_refused(kind: type, wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**wrong)
