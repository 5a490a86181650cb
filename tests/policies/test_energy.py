"""Energy policies: exact conversions, three objectives, best of several starts, and the traps of the release."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.energy import EnergyConfig, EnergyPolicy, approach
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.energy_transformer import EnergyTransformerConfig
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.guidance import ChunkGuide
from sensorimotor.policies.network import Features
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, FlowEuler, SamplerConfig, Trace
from sensorimotor.policies.unroll import Unroll

CHUNK = ChunkConfig(observation_steps=1, horizon=4, execute=2)
CONFIG = EnergyConfig(chunk=CHUNK, trunk=EnergyMLPConfig(width=16, depth=1), objective="denoise")
TRANSFORMER = EnergyTransformerConfig(width=16, layers=1, observation_layers=1, heads=2)
RECIPE = replace(
    CONFIG, objective="regress", step=DescentStep(size=5.0, normalize=True, temperature=9.0), unroll=Unroll(steps=2)
)  # fmt: skip
EQM = replace(CONFIG, objective="eqm")
OBJECTIVES = [CONFIG, EQM, RECIPE]
IDS = ["denoise", "eqm", "regress"]


def build(config: EnergyConfig, episodes: Episodes, *, bend: float = 0.3) -> EnergyPolicy:
    """A policy whose energy is not nearly flat, as that of fresh weights is."""
    policy = make_policy(config, episodes)
    assert isinstance(policy, EnergyPolicy)
    generator = torch.Generator().manual_seed(0)
    for p in policy.trunk.parameters():
        if bend:
            nn.init.normal_(p, std=bend, generator=generator)
    return policy.eval()


def observe(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = {"state": 2, "environment": 3}
    return {key: torch.rand(batch, 1, width, generator=generator) for key, width in widths.items()}


class Bowl(nn.Module):
    """E = |x - action|^2 / 2 per row: a landscape that knows the answer; counts the rows it is asked about."""

    def __init__(self, action: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(scale))
        self.action, self.rows = action, 0

    def observe(self, features: Tensor) -> Tensor:
        return torch.arange(float(len(features))).view(-1, 1)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        self.rows += len(x)
        return self.weight * 0.5 * (x - self.action[memory[:, 0].long()]).square().sum(dim=(1, 2))


def with_bowl(config: EnergyConfig, episodes: Episodes, action: Tensor, scale: float = 1.0) -> EnergyPolicy:
    policy = build(config, episodes)
    del policy.trunk
    policy.trunk = Bowl(action, scale)  # pyright: ignore[reportAttributeAccessIssue]
    return policy


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, objective="regress")], ids=["denoise", "regress"])
def test_noise_and_velocity_follow_from_the_action_the_step_leads_to(
    episodes: Episodes, config: EnergyConfig
) -> None:
    action = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    policy = with_bowl(config, episodes, action)  # a step of size 1 leads to the bottom of this bowl
    x, s = torch.randn(3, 4, 2), torch.tensor([1.0, 0.5, 0.1])
    condition = policy.encode(observe())
    position = s.view(-1, 1, 1)
    noise = (x - (1 - position) * action) / position
    torch.testing.assert_close(policy.predict_noise(x, s, condition), noise, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(policy.predict_velocity(x, s, condition), noise - action, atol=1e-5, rtol=1e-4)
    at_zero = policy.predict_noise(x, torch.tensor(0.0), condition)
    torch.testing.assert_close(at_zero, (x - 0.999 * action) / 1e-3, rtol=1e-3, atol=1e-2)  # s is floored


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (replace(CONFIG, step=DescentStep(size=0.3)), 0.7),
        (replace(CONFIG, step=DescentStep(size=0.3), learn_size=True), 0.7),
        # The whole descent; without one of its own, ten steps.
        (replace(CONFIG, objective="regress", step=DescentStep(size=0.1, momentum=0.0), sampler=Descent(steps=3)), 0.9**3),
        (replace(CONFIG, objective="regress", step=DescentStep(size=0.1, momentum=0.0), sampler=FlowEuler()), 0.9**10),
    ],
)  # fmt: skip
def test_the_action_is_where_a_step_leads_that_does_not_reach_the_bottom(
    episodes: Episodes, config: EnergyConfig, left: float
) -> None:
    action = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    policy, x, s = with_bowl(config, episodes, action), torch.randn(3, 4, 2), torch.tensor(0.5)
    end = action + left * (x - action)
    velocity = policy.predict_velocity(x, s, policy.encode(observe()))
    torch.testing.assert_close(velocity, (x - end) / 0.5, atol=1e-5, rtol=1e-4)


def test_the_gradient_of_eqm_is_the_velocity_times_its_factor(episodes: Episodes) -> None:
    action = torch.zeros(3, 4, 2)
    policy = with_bowl(EQM, episodes, action)
    x, s = torch.randn(3, 4, 2), torch.tensor([0.9, 0.2, 0.1])
    condition = policy.encode(observe())
    factor = torch.tensor([1.0, 1.0, 0.5]).view(-1, 1, 1)
    torch.testing.assert_close(policy.predict_velocity(x, s, condition), x / factor)
    torch.testing.assert_close(policy.predict_noise(x, s, condition), x + (1 - s.view(-1, 1, 1)) * x / factor)


def test_the_factor_of_eqm_vanishes_at_the_action() -> None:
    s = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.02])
    torch.testing.assert_close(approach(s), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.1]))
    assert approach(torch.tensor(0.0)).item() == pytest.approx(0.005)


@pytest.mark.parametrize("sampler", [Descent(steps=1), Descent(steps=2), FlowEuler(steps=4), DDIM(clip=None)])
def test_every_sampler_finds_the_bottom_of_a_known_landscape(
    episodes: Episodes, sampler: SamplerConfig | Descent
) -> None:
    action = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    policy = with_bowl(CONFIG, episodes, action)
    condition = policy.encode(observe())
    x = policy.draw_normalized(condition, (3, 4, 2), sampler)
    torch.testing.assert_close(x, action, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("objective", ["denoise", "regress"])
def test_the_loss_is_zero_for_a_landscape_that_knows_the_answer(episodes: Episodes, objective: str) -> None:
    still = Unroll(steps=2, extra=0, size_spread=1.0, noise=(0.0, 0.0))
    config = replace(CONFIG, objective=objective, unroll=still)  # pyright: ignore[reportArgumentType]
    policy = build(config, episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    action = policy.normalizer.normalize("action", batch.action)
    assert with_bowl(config, episodes, action)(batch, torch.Generator().manual_seed(0)).item() < 1e-9
    assert with_bowl(config, episodes, action, 0.5)(batch, torch.Generator().manual_seed(0)).item() > 0.01


def test_the_unrolled_descent_starts_at_noise_that_knows_nothing_of_the_action(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, objective="regress", unroll=Unroll(noise=(0.0, 0.0))), episodes)
    seen: list[Tensor] = []
    policy.trunk.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    batch = Windows(episodes, policy.spec).batch(np.arange(20))
    policy(replace(batch, action=batch.action + 100.0), torch.Generator().manual_seed(0))
    assert seen[0].mean().item() == pytest.approx(0.0, abs=0.3)
    assert seen[0].std().item() == pytest.approx(1.0, abs=0.2)


def test_a_flat_landscape_has_the_loss_of_the_way_itself(episodes: Episodes) -> None:
    policy = build(EQM, episodes, bend=0.0)
    for p in policy.parameters():
        nn.init.zeros_(p)
    batch = Windows(episodes, policy.spec).batch(np.random.default_rng(0).integers(episodes.steps, size=6000))
    action = policy.normalizer.normalize("action", batch.action)
    mean_factor = 0.8 + 0.2 / 3  # of c^2 over the path
    expected = (1 + action.square().mean().item()) * mean_factor
    assert policy(batch, torch.Generator().manual_seed(0)).item() == pytest.approx(expected, rel=0.03)


NOISE = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("config", "sampler", "left"),
    [
        (EQM, Descent(steps=5), (1 - 2 / 5) ** 5),  # steps of 2 / n
        (EQM, Descent(steps=5, size=0.1), 0.9**5),
        (replace(CONFIG, step=DescentStep(size=0.3, momentum=0.0)), Descent(steps=3), 0.7**3),
        (replace(CONFIG, step=DescentStep(size=0.3)), Descent(steps=3, size=0.1, momentum=0.0), 0.9**3),
        (CONFIG, Descent(steps=4, size=0.1, momentum=0.9), 0.589178 / 2),  # Nesterov's recursion
        (CONFIG, Descent(steps=2, size=0.1, spread=0.5), 0.5 * 0.9**2),
    ],
)
def test_a_sampler_decides_on_starts_sizes_and_momentum(
    episodes: Episodes, config: EnergyConfig, sampler: Descent, left: float
) -> None:
    policy = with_bowl(config, episodes, torch.zeros(3, 4, 2))
    x = policy.draw_normalized(policy.encode(observe()), (3, 4, 2), sampler, noise=NOISE)
    torch.testing.assert_close(x, left * NOISE)


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_repeated_actions_past_the_end_of_an_episode_teach_nothing(
    episodes: Episodes, config: EnergyConfig
) -> None:
    policy = build(replace(config, mask_loss=True), episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(4))
    nothing = replace(batch, mask=torch.zeros_like(batch.mask))
    assert policy(nothing, torch.Generator().manual_seed(0)).item() == 0.0
    assert policy(batch, torch.Generator().manual_seed(0)).item() > 0.0


@pytest.mark.parametrize("trunk", [CONFIG.trunk, TRANSFORMER], ids=["mlp", "transformer"])
@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_sampling_works_and_agrees_in_every_mode(
    episodes: Episodes, config: EnergyConfig, trunk: EnergyMLPConfig | EnergyTransformerConfig
) -> None:
    policy = build(replace(config, trunk=trunk), episodes)
    for sampler in (Descent(steps=3, best_of=2), FlowEuler(steps=2)):
        plain = policy.sample(observe(), sampler=sampler)
        assert torch.isfinite(plain).all()
        assert not plain.requires_grad
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                torch.testing.assert_close(policy.sample(observe(), sampler=sampler), plain)
                condition = policy.encode(observe())
                assert (
                    policy.predict_velocity(torch.zeros(3, 4, 2), torch.tensor(0.5), condition)
                    .isfinite()
                    .all()
                )


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_what_was_encoded_in_inference_mode_can_be_sampled_from_outside_of_it(
    episodes: Episodes, config: EnergyConfig
) -> None:
    policy = build(replace(config, trunk=TRANSFORMER), episodes)
    with torch.inference_mode():
        condition = policy.encode(observe())
    x = policy.draw_normalized(condition, (3, 4, 2), Descent(steps=3))
    known = policy.draw_normalized(policy.encode(observe()), (3, 4, 2), Descent(steps=3))
    torch.testing.assert_close(x, known)


@pytest.mark.parametrize("config", OBJECTIVES, ids=IDS)
def test_predictions_can_be_differentiated_by_whoever_guides_them(
    episodes: Episodes, config: EnergyConfig
) -> None:
    policy = build(config, episodes)
    condition, s = policy.encode(observe()), torch.tensor(0.5)

    def velocity(x: Tensor) -> Tensor:
        return policy.predict_velocity(x, s, condition)

    x, direction = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4, 2)
    pull = torch.func.vjp(velocity, x)[1]
    leaf = x.clone().requires_grad_()
    velocity(leaf).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(pull(direction)[0], leaf.grad, atol=1e-5, rtol=1e-4)
    assert leaf.grad.abs().max() > 0


@pytest.mark.parametrize(
    "sampler", [Descent(steps=7), Descent(steps=30, tolerance=0.3), Descent(steps=3, best_of=4)]
)
def test_evaluations_are_the_rows_that_went_through_the_network(episodes: Episodes, sampler: Descent) -> None:
    action = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    policy = with_bowl(replace(CONFIG, step=DescentStep(size=0.3)), episodes, action)
    bowl, trace = policy.trunk, Trace()
    assert isinstance(bowl, Bowl)
    policy.sample(observe(), sampler=sampler)
    silent = bowl.rows
    policy.sample(observe(), sampler=sampler, trace=trace)
    assert trace.evaluations is not None
    assert trace.evaluations.shape == (3, 1)
    assert trace.evaluations.sum().item() == silent
    # A trace looks the energies up once more, unless they were needed to choose among starts.
    assert bowl.rows - silent == silent + (3 if sampler.best_of == 1 else 0)


def test_observations_are_read_once_for_all_steps(episodes: Episodes) -> None:
    policy, read = build(replace(CONFIG, trunk=TRANSFORMER), episodes), []
    policy.trunk.observation_in.register_forward_hook(lambda *_: read.append(1))
    policy.sample(observe(), samples=2, sampler=Descent(steps=5))
    assert len(read) == 1


def test_a_descent_inside_every_flow_step_is_counted(episodes: Episodes) -> None:
    policy = build(replace(RECIPE, sampler=Descent(steps=5, tolerance=1.0)), episodes)
    rows, trace = [], Trace()
    policy.trunk.register_forward_hook(lambda module, arguments, out: rows.append(len(out)))
    policy.sample(observe(), sampler=FlowEuler(steps=2), trace=trace)
    assert trace.evaluations is not None
    assert (trace.evaluations == 10).all()
    assert sum(rows) == 30 + 3


def test_a_guided_chunk_costs_and_has_an_energy_too(episodes: Episodes) -> None:
    policy, trace = build(replace(RECIPE, sampler=Descent(steps=5, tolerance=1.0)), episodes), Trace()
    guide = ChunkGuide(previous=torch.zeros(3, 4, 2), delay=1, end=2)
    policy.sample(observe(), sampler=FlowEuler(steps=2), guide=guide, trace=trace)
    assert trace.evaluations is not None
    assert (trace.evaluations == 10).all()
    assert trace.energy is not None


@pytest.mark.parametrize("sampler", [Descent(steps=3), Descent(steps=3, best_of=3), FlowEuler(steps=2)])
def test_a_trace_holds_the_energy_of_each_chunk(episodes: Episodes, sampler: Descent | FlowEuler) -> None:
    policy, trace = build(CONFIG, episodes), Trace()
    chunks = policy.sample(observe(), samples=2, sampler=sampler, trace=trace)
    condition = policy.encode(observe()).repeat(2)
    energy = policy.energy(policy.normalize_action(chunks.flatten(0, 1), condition), condition)
    assert trace.energy is not None
    torch.testing.assert_close(trace.energy, energy.view(3, 2), atol=1e-4, rtol=1e-4)


def test_the_best_of_more_starts_is_never_worse(episodes: Episodes) -> None:
    policy, energies = build(CONFIG, episodes, bend=0.8), []
    for best_of in (1, 2, 4, 8):
        trace = Trace()
        policy.sample(observe(), sampler=Descent(steps=2, best_of=best_of), trace=trace)
        assert trace.energy is not None
        energies.append(trace.energy)
    for fewer, more in itertools.pairwise(energies):
        assert (more <= fewer + 1e-6).all()
    assert (energies[-1] < energies[0] - 1e-3).any()


def test_more_starts_find_the_deeper_of_two_basins(episodes: Episodes) -> None:
    class TwoBasins(Bowl):
        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            right, left = 0.5 * (x - 1).square(), 0.5 * (x + 1).square()
            return torch.where(x.mean(dim=(1, 2)) > 0, right.sum(dim=(1, 2)), left.sum(dim=(1, 2)) + 0.5)

    policy = with_bowl(CONFIG, episodes, torch.zeros(50, 4, 2))
    policy.trunk = TwoBasins(torch.zeros(50, 4, 2))  # pyright: ignore[reportAttributeAccessIssue]
    condition = policy.encode(observe(50))
    shares = []
    for best_of in (1, 8):
        x = policy.draw_normalized(condition, (50, 4, 2), Descent(steps=2, best_of=best_of))
        shares.append((x[:, 0, 0] > 0).float().mean().item())
    assert 0.2 < shares[0] < 0.8
    assert shares[1] > 0.95


def test_the_best_of_one_start_is_a_single_run(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    noise = torch.randn(3, 1, 4, 2, generator=torch.Generator().manual_seed(0))
    single = policy.sample(observe(), sampler=Descent(steps=3))
    assert torch.equal(policy.sample(observe(), sampler=Descent(steps=3, best_of=1)), single)
    assert torch.equal(policy.sample(observe(), sampler=Descent(steps=3), noise=noise), single)


def test_a_start_that_ran_off_is_never_the_best(episodes: Episodes) -> None:
    class Cliff(Bowl):
        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            return torch.where(x[:, 0, 0] > 0, super().forward(x, memory), torch.nan)

    policy = with_bowl(replace(CONFIG, step=DescentStep(size=0.01)), episodes, torch.ones(3, 4, 2))
    policy.trunk = Cliff(torch.ones(3, 4, 2))  # pyright: ignore[reportAttributeAccessIssue]
    condition = policy.encode(observe())
    x = policy.draw_normalized(condition, (3, 4, 2), Descent(steps=1, best_of=16))
    assert (x[:, 0, 0] > 0).all()


def test_samples_do_not_depend_on_what_is_sampled_beside_them(episodes: Episodes) -> None:
    policy = build(replace(RECIPE, sampler=Descent(steps=20, tolerance=0.05)), episodes)
    noise = torch.randn(3, 2, 4, 2, generator=torch.Generator().manual_seed(0))
    together = policy.sample(observe(), samples=2, noise=noise)
    for i in range(3):
        alone = policy.sample({k: v[i : i + 1] for k, v in observe().items()}, noise=noise[i : i + 1, 1:])
        torch.testing.assert_close(alone[0, 0], together[i, 1], atol=1e-5, rtol=1e-5)


def test_dropout_is_silent_once_the_policy_is_evaluated(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, trunk=replace(TRANSFORMER, attention_dropout=0.5)), episodes)
    assert torch.equal(policy.sample(observe()), policy.sample(observe()))
    condition, x = policy.encode(observe()), torch.zeros(3, 4, 2)
    assert torch.equal(policy.energy(x, condition), policy.energy(x, condition))
    policy.train()
    assert not torch.equal(policy.energy(x, condition), policy.energy(x, condition))


@pytest.mark.parametrize(("clamp", "sound"), [((-3.0, 1.0), True), (None, False)])
def test_training_survives_steep_landscapes_because_the_step_is_bounded(
    episodes: Episodes, clamp: tuple[float, float] | None, sound: bool
) -> None:
    step = DescentStep(size=10.0, temperature=1.0, clamp=clamp)
    policy = with_bowl(replace(RECIPE, step=step), episodes, torch.zeros(21, 4, 2), 5.0)
    batch = Windows(episodes, policy.spec).batch(np.arange(21))
    policy(batch, torch.Generator().manual_seed(0)).backward()
    gradient = policy.trunk.weight.grad  # pyright: ignore[reportAttributeAccessIssue]
    assert bool(torch.isfinite(gradient)) == sound  # pyright: ignore[reportArgumentType]


def test_the_baseline_of_an_energy_policy_predicts_chunks_with_a_network_of_its_size(
    episodes: Episodes,
) -> None:
    for trunk in (EnergyMLPConfig(width=24, depth=2), TRANSFORMER):
        baseline = RegressorConfig.like(replace(CONFIG, trunk=trunk, relative="state"))
        assert baseline.trunk.width == trunk.width  # pyright: ignore[reportAttributeAccessIssue]
        assert baseline.relative == "state"
        assert make_policy(baseline, episodes).sample(observe()).shape == (3, 1, 4, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": "eqn"}, "unknown objective 'eqn'; did you mean 'eqm'"),
        ({"objective": "eqm", "learn_size": True}, "eqm trains the gradient"),
        ({"objective": "eqm", "step": DescentStep(temperature=9.0)}, "step.temperature none"),
        ({"objective": "denoise", "step": DescentStep(normalize=True)}, "step.normalize must be false"),
    ],
)
def test_impossible_combinations_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnergyConfig(**wrong)


@pytest.mark.parametrize("best_of", [1, 3])
def test_the_prefix_is_held_while_the_rest_goes_down(episodes: Episodes, best_of: int) -> None:
    seen: list[Tensor] = []
    policy = build(CONFIG, episodes)
    policy.trunk.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0].detach().clone())
    )
    prefix = torch.tensor([[[0.2, 0.1]], [[-0.4, 1.0]], [[0.0, 0.0]]])
    chunks = policy.sample(observe(), prefix=prefix, sampler=Descent(steps=4, best_of=best_of))
    assert torch.equal(chunks[:, 0, :1], prefix)
    held = policy.normalize_action(prefix, policy.encode(observe())).repeat_interleave(best_of, dim=0)
    assert len(seen) == (4 if best_of == 1 else 5)
    for x in seen:
        torch.testing.assert_close(x[:, :1], held)


def test_features_keep_what_the_network_read(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    condition = policy.encode(observe())
    assert isinstance(condition, Features)
    assert condition.values.shape == (3, 1, 16)
