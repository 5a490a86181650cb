"""Members asked in one go: the same answers, in step with their weights, and each still accounted for and named."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import ComposedPolicy, compose
from sensorimotor.composition.fault import MemberError
from sensorimotor.composition.guided import guide
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.superposed import superpose
from sensorimotor.composition.weights import Observed, PerDimension, Schedule
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig, ResidualMLP
from sensorimotor.policies.network import NetworkConfig
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import DDIM, DDPM, DPMSolver, FlowEuler, FlowHeun
from sensorimotor.policies.unet import UNetConfig

CHUNK = ChunkConfig(observation_steps=2, horizon=4, execute=2)
TINY = MLPConfig(width=16, depth=2, step_width=8)
FLOW = FlowConfig(chunk=CHUNK, trunk=TINY)
DIFFUSION = DiffusionConfig(chunk=CHUNK, trunk=TINY)
SEEN = {"state": torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(9))}


def network(config: Any = FLOW, seed: int = 0, *, scale: float = 1.0, keys: Any = ("state",)) -> Any:
    """A policy whose weights are all random, those that begin at zero too."""
    spec = Spec(observation={key: Field(shape=(2,)) for key in keys}, action=Field(shape=(2,)), control_hz=10)
    statistics = {key: (torch.zeros(2), torch.ones(2)) for key in keys}
    statistics["action"] = (torch.zeros(2), torch.full((2,), scale))
    policy: Any = build_policy(config, config.chunk.apply(spec), Normalizer(statistics), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return policy.eval()


def alone(policy: Any) -> Any:
    """The same composition, its members asked one by one."""
    policy = copy.deepcopy(policy)
    policy.teams = []
    return policy


def assert_same(
    policy: Any, seen: Mapping[str, Tensor] = SEEN, tolerance: float = 1e-6, **options: Any
) -> None:
    assert policy.teams
    found, expected = (p.sample(seen, samples=4, **options) for p in (policy, alone(policy)))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    "config",
    [FLOW, DIFFUSION, replace(DIFFUSION, prediction="sample"), replace(DIFFUSION, prediction="v_prediction")],
)
@pytest.mark.parametrize("sampler", [FlowEuler(), FlowHeun(), DDIM(), DDPM(steps=20), DPMSolver()])
def test_together_is_one_by_one(config: NetworkConfig, sampler: Any) -> None:
    policy = compose([network(config, seed) for seed in range(2)], (0.3, 0.7))
    # A velocity made of noise enlarges what rounding there is in the first steps, where it divides by 1 - s.
    assert_same(policy, tolerance=1e-5 if config == DIFFUSION else 1e-6, sampler=sampler)


@pytest.mark.parametrize("config", [FLOW, DIFFUSION])
@pytest.mark.parametrize("s", [torch.tensor(0.4), torch.linspace(0.01, 0.9, 3)])
def test_every_answer_is_that_of_the_member(config: NetworkConfig, s: Tensor) -> None:
    policy = compose([network(config, seed) for seed in range(3)])
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    known = policy.encode(SEEN)
    with torch.no_grad():
        for question in ("noise", "velocity"):
            found = policy.ask_all([2, 0, 1], question, x, s, known)
            expected = [policy.asked[n].ask(question, x, s, known.known(n)) for n in (2, 0, 1)]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # float32, over alphas below 1
    assert known.joints


@pytest.mark.parametrize(
    "weights",
    [
        Schedule((0.2, 0.6), ((0.5, 0.2, 0.3), (0.0, 1.0, 0.0))),
        PerDimension(((1, 0), (0, 1), (0, 0))),
        Observed(lambda seen: torch.softmax(seen["state"].sum(dim=1) @ torch.ones(2, 3), dim=1), 3),
    ],
)
def test_weights_of_every_form_mix_what_is_asked_together(weights: Any) -> None:
    assert_same(compose([network(seed=seed) for seed in range(3)], weights))


def test_only_what_counts_is_asked() -> None:
    # While only one of a team counts, it answers alone: 5 of 10 steps each.
    policy = compose(
        {"a": network(seed=1), "b": network(seed=2)}, Schedule((0.5, 0.500001), ((0.0, 1.0), (1.0, 0.0)))
    )
    policy.sample(SEEN)
    assert [policy.ledger.calls(name) for name in policy.names] == [5, 5]


def test_members_of_one_team_may_lie_apart_in_the_composition() -> None:
    unet = network(replace(FLOW, trunk=UNetConfig(channels=(8, 16), kernel=3, groups=4, step_width=8)), 3)
    policy = compose([network(seed=1), unet, network(seed=2), network(DIFFUSION, 4)], (0.1, 0.2, 0.3, 0.4))
    assert [team.numbers for team in policy.teams] == [(0, 2)]
    assert_same(policy)


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (replace(FLOW, time="uniform", octaves=0, sampler=FlowEuler(steps=3)), True),
        (replace(FLOW, trunk=replace(TINY, width=32)), False),
        (replace(FLOW, trunk=replace(TINY, step_width=16)), False),
        (replace(FLOW, octaves=1), False),
        (replace(FLOW, chunk=replace(CHUNK, observation_steps=1)), False),
        (DIFFUSION, False),
    ],
)
def test_only_networks_of_one_shape_are_asked_together(other: NetworkConfig, together: bool) -> None:
    assert bool(compose([network(), network(other, 1)]).teams) == together


def test_diffusion_members_of_different_schedules_are_asked_one_by_one() -> None:
    for other in ({"beta_schedule": "linear"}, {"train_steps": 50}, {"prediction": "sample"}, {"clip": None}):
        assert not compose([network(DIFFUSION), network(replace(DIFFUSION, **other), 1)]).teams


def test_sensors_with_other_names_and_histories_are_no_obstacle() -> None:
    long = replace(FLOW, chunk=replace(CHUNK, observation_steps=4))
    policy = compose([network(long, 1, keys=("near",)), network(FLOW, 2, keys=("near", "far"))])
    seen = {key: torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(3)) for key in ("near", "far")}
    assert_same(policy, seen)


def test_actions_relative_to_different_observations_are_asked_together() -> None:
    members = [
        network(replace(FLOW, relative=key), seed, keys=("left", "right"))
        for seed, key in enumerate(("left", "right"))
    ]
    seen = {
        key: torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(3)) for key in ("left", "right")
    }
    assert_same(compose(members), seen)
    assert_same(compose(members), seen, sampler=DDIM(clip=None))


def test_another_scale_is_another_noise_level_and_another_team() -> None:
    members = [network(seed=0), *(network(seed=seed, scale=2.0) for seed in (1, 2))]
    policy = compose(members, (0.2, 0.5, 0.3))
    assert [team.numbers for team in policy.teams] == [(1, 2)]
    assert_same(policy)


def test_shorter_chunks_and_parts_of_an_action_are_asked_together() -> None:
    short = replace(FLOW, chunk=replace(CHUNK, horizon=2))
    long = network(replace(FLOW, chunk=replace(CHUNK, horizon=6)), 0)
    assert_same(compose([long, network(short, 1), Part(network(short, 2), columns=(1, 0))]))


def test_weights_that_change_are_noticed() -> None:
    members = [network(seed=seed) for seed in range(2)]
    policy = compose(members)
    before = policy.sample(SEEN)
    with torch.no_grad():
        members[1].trunk.outlet.weight.mul_(2)
    assert_same(policy)
    assert not torch.equal(policy.sample(SEEN), before)
    members[0].load_state_dict(network(seed=5).state_dict())
    assert_same(policy)
    members[0].trunk.load_state_dict(network(seed=6).trunk.state_dict(), assign=True)
    assert_same(policy)
    optimizer = torch.optim.SGD(members[1].parameters(), lr=0.1)
    members[1].trunk(torch.randn(1, 4, 2), torch.tensor(5.0), torch.randn(1, 2, 2)).sum().backward()
    optimizer.step()
    assert_same(policy)
    assert torch.equal(copy.deepcopy(policy).sample(SEEN), policy.sample(SEEN))


def test_members_of_unlike_precision_are_asked_one_by_one() -> None:
    class Precise(ResidualMLP):
        def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
            return super().forward(x.double(), step, condition.double()).float()

    members = [network(seed=seed) for seed in range(2)]
    policy = compose(members)
    assert policy.teams
    members[1].trunk.double().__class__ = Precise
    assert not compose(members).teams
    torch.testing.assert_close(policy.sample(SEEN), alone(policy).sample(SEEN), atol=0, rtol=0)


def test_gradients_reach_chunks_and_weights() -> None:
    members = [network(seed=seed) for seed in range(2)]
    policy = compose(members)
    x, s = torch.randn(3, 4, 2, requires_grad=True), torch.tensor(0.4)
    policy.predict_velocity(x, s, policy.encode(SEEN)).square().sum().backward()
    assert x.grad is not None
    assert all(float(member.trunk.outlet.weight.grad.abs().sum()) > 0 for member in members)

    def height(chunks: Tensor, observation: Any) -> Tensor:
        return chunks[..., 0].square().sum(dim=2)

    found, expected = (guide(p, height, strength=0.5).sample(SEEN) for p in (policy, alone(policy)))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(policy.sample(SEEN), alone(policy).sample(SEEN), atol=1e-6, rtol=1e-6)


def test_every_member_is_accounted_for_and_time_is_shared() -> None:
    policy = compose({"a": network(seed=1), "b": network(seed=2)})
    now = iter(range(100_000))
    policy.ledger.clock = lambda: float(next(now))
    policy.sample(SEEN, samples=5, sampler=FlowEuler(steps=4))
    entries = policy.ledger.entries
    for name in ("a", "b"):
        entry = entries[name, "velocity"]
        assert (entry.calls, entry.rows, entry.seconds) == (4, 4 * 15, 2.0)
    assert policy.evaluations == 8


def broken(policy: GenerativePolicy) -> GenerativePolicy:
    with torch.no_grad():
        policy.get_parameter("trunk.outlet.bias")[0] = float("nan")
    return policy


def test_the_member_of_a_team_that_answers_nonsense_is_named() -> None:
    policy = compose({"a": network(seed=1), "b": broken(network(seed=2)), "c": network(seed=3)})
    with pytest.raises(
        MemberError, match=r"'b' \(FlowPolicy\) failed to predict the velocity: 3 of 24 numbers"
    ) as caught:
        policy.sample(SEEN)
    assert caught.value.member == "b"


def test_the_others_of_a_team_go_on() -> None:
    members = {"a": network(seed=1), "b": broken(network(seed=2)), "c": network(seed=3)}
    policy = compose(members, (0.2, 0.5, 0.3), fallback="others")
    with pytest.warns(UserWarning, match="member 'b' failed and the others went on"):
        found = policy.sample(SEEN)
    assert policy.faults == {"b": 1}
    expected: ComposedPolicy = compose([members["a"], members["c"]], (0.4, 0.6))
    torch.testing.assert_close(found, expected.sample(SEEN), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("operator", ["and", "or"])
def test_superpositions_ask_together(operator: Any) -> None:
    policy = superpose([network(seed=seed) for seed in range(3)], operator, sampler=ReverseSDE(steps=100))
    assert policy.teams
    found, expected = (p.sample(SEEN).double() for p in (policy, alone(policy)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # hundreds of steps enlarge rounding


def test_a_composition_inside_asks_its_own_team(gaussian: Callable) -> None:
    inner = compose([network(seed=1), network(seed=2)])
    outer = compose([inner, network(seed=3)], (0.6, 0.4))
    flat = compose([network(seed=1), network(seed=2), network(seed=3)], (0.3, 0.3, 0.4))
    assert len(inner.teams) == len(flat.teams) == 1
    assert not outer.teams
    torch.testing.assert_close(outer.sample(SEEN), flat.sample(SEEN), atol=1e-6, rtol=1e-6)
