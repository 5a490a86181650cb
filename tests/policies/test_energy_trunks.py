"""Networks that give an energy: smooth to the second derivative, and with the published structure."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.descent_step import DescentStep, advance, slope
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.energy_transformer import (
    Attention,
    EnergyTransformer,
    EnergyTransformerConfig,
    frame_mask,
)
from sensorimotor.policies.energy_trunk import EnergyTrunk, EnergyTrunkConfig, build_energy_trunk

SMALL = EnergyTransformerConfig(width=8, layers=1, observation_layers=1, heads=2, attention_dropout=0.0)
TRUNKS: list[EnergyTrunkConfig] = [EnergyMLPConfig(width=12, depth=2), SMALL]
IDS = ["mlp", "transformer"]


def build(config: EnergyTrunkConfig, *, steps: int = 2, horizon: int = 4, start: int = 0) -> EnergyTrunk:
    spec = Spec(
        observation={"state": Field(shape=(3,))}, action=Field(shape=(2,)), control_hz=10,
        observation_steps=steps, horizon=horizon, start=start,
    )  # fmt: skip
    torch.manual_seed(0)
    trunk = build_energy_trunk(config, spec, 3)
    for p in trunk.parameters():  # blocks that are identities at first would hide themselves
        if (p == 0).all():
            nn.init.normal_(p, std=0.3)
    return trunk


def inputs(batch: int = 3, horizon: int = 4, steps: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, horizon, 2, generator=generator),
        torch.randn(batch, steps, 3, generator=generator),
    )


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_energies_are_numbers_of_their_own_row(config: EnergyTrunkConfig) -> None:
    trunk, (x, features) = build(config), inputs()
    energy = trunk(x, trunk.observe(features))
    assert energy.shape == (3,)
    torch.testing.assert_close(trunk(x[1:2], trunk.observe(features[1:2])), energy[1:2])
    assert not torch.allclose(trunk(x, trunk.observe(features.flip(0))), energy)


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_gradients_agree_with_finite_differences_to_second_order(config: EnergyTrunkConfig) -> None:
    trunk, (x, features) = build(config).double(), inputs(2)
    x, features = x.double().requires_grad_(), features.double().requires_grad_()

    def energy(x: Tensor, features: Tensor) -> Tensor:
        return trunk(x, trunk.observe(features))

    assert torch.autograd.gradcheck(energy, (x, features))
    assert torch.autograd.gradgradcheck(energy, (x, features))


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_gradients_have_no_jumps(config: EnergyTrunkConfig) -> None:
    # A kink, as of ReLU, has no curvature to learn from; finite differences beside it do not notice.
    trunk, (x, features) = build(config).double(), inputs(1)
    memory, way = trunk.observe(features.double()).detach(), torch.ones(1, 4, 2, dtype=torch.float64)
    largest = []
    for points in (501, 1001):
        along = x.double() + torch.linspace(-3, 3, points, dtype=torch.float64).view(-1, 1, 1) * way
        _, gradient = slope(lambda y, n=points: trunk(y, memory.expand(n, -1, -1)), along)
        largest.append(gradient.diff(dim=0).abs().amax().item())
    assert largest[1] < 0.6 * largest[0]  # half as far apart, half as different


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_weights_learn_through_the_gradient_as_finite_differences_say(config: EnergyTrunkConfig) -> None:
    trunk, (x, features) = build(config).double(), inputs(2)
    x, features = x.double(), features.double()

    def loss() -> Tensor:
        memory = trunk.observe(features)
        step = DescentStep(momentum=0.0, normalize=True, temperature=2.0)
        return advance(lambda y: trunk(y, memory), x, torch.zeros_like(x), step, size=3.0).x.square().mean()

    loss().backward()
    learned = {name: p.grad for name, p in trunk.named_parameters() if p.grad is not None}
    generator = torch.Generator().manual_seed(0)
    for name, p in trunk.named_parameters():
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            p += 1e-5 * direction
            high = loss()
            p -= 2e-5 * direction
            low = loss()
            p += 1e-5 * direction
        slope = (learned[name] * direction).sum().item()
        assert ((high - low) / 2e-5).item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_a_head_of_zeros_leaves_chunks_where_they_are_and_learns_first(config: EnergyTrunkConfig) -> None:
    config = replace(config, zero_head=True)
    spec = Spec(
        observation={"state": Field(shape=(3,))}, action=Field(shape=(2,)), control_hz=10,
        observation_steps=2, horizon=4,
    )  # fmt: skip
    trunk, (x, features) = build_energy_trunk(config, spec, 3), inputs()
    memory = trunk.observe(features)
    move = advance(lambda y: trunk(y, memory), x, torch.zeros_like(x), DescentStep(), size=1.0)
    assert (move.energy == 0).all()
    assert torch.equal(move.x, x)
    move.x.square().mean().backward()
    head = trunk.head[-1] if isinstance(trunk, EnergyTransformer) else trunk.head
    for name, p in trunk.named_parameters():
        moved = p.grad is not None and bool((p.grad != 0).any())
        assert moved == (p is head.weight), name


def test_an_action_sees_the_observations_up_to_its_own_time() -> None:
    # As released, the chunk starts at the oldest frame: action i sees frame j iff i >= j.
    released = frame_mask(4, 2, start=-1)
    assert released.tolist() == [[True, False], [True, True], [True, True], [True, True]]
    assert frame_mask(4, 3, start=0).all()  # a chunk that starts now has seen everything


@pytest.mark.parametrize("causal", [True, False])
def test_the_first_action_is_blind_to_later_frames_only_where_time_rules(causal: bool) -> None:
    trunk, (x, features) = build(replace(SMALL, causal=causal), start=-1), inputs()
    assert isinstance(trunk, EnergyTransformer)
    changed = features.clone()
    changed[:, 1] += 1.0
    read: list[Tensor] = []
    trunk.norm.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    for seen in (features, changed):
        trunk(x, trunk.observe(seen))
    one, other = read
    assert torch.allclose(one[:, 0], other[:, 0]) == causal
    assert not torch.allclose(one[:, 1], other[:, 1])


def test_actions_are_attended_to_in_both_directions() -> None:
    trunk, (x, features) = build(SMALL), inputs()
    assert isinstance(trunk, EnergyTransformer)
    memory = trunk.observe(features)
    block = trunk.action_blocks[0]
    h = trunk.action_in(x) + trunk.action_position
    for changed in (0, 3):
        other = h.clone()
        other[:, changed] += 1.0
        difference = (block(other, memory, None) - block(h, memory, None)).abs().amax(dim=(0, 2))
        assert (difference > 1e-6).all()


def test_the_order_of_actions_counts() -> None:
    trunk, (x, features) = build(SMALL), inputs()
    memory = trunk.observe(features)
    assert not torch.allclose(trunk(x.flip(1), memory), trunk(x, memory))


def test_observations_are_read_in_the_order_of_time() -> None:
    trunk, (_, features) = build(SMALL), inputs()
    changed = features.clone()
    changed[:, 1] += 1.0
    before, after = trunk.observe(features), trunk.observe(changed)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_attention_is_the_softmax_of_normalised_products() -> None:
    torch.manual_seed(0)
    attention = Attention(SMALL)
    x, seen = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    q = attention.query_norm(attention.query(x).unflatten(-1, (2, 4)).transpose(1, 2))
    k, v = attention.key_value(seen).chunk(2, dim=-1)
    k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (k, v))
    fused = nn.functional.scaled_dot_product_attention(q, attention.key_norm(k), v)
    torch.testing.assert_close(attention(x, seen), attention.out(fused.transpose(1, 2).flatten(2)))


def test_the_energy_is_a_mean_and_so_does_not_grow_with_the_chunk() -> None:
    trunk, (x, features) = build(SMALL), inputs()
    assert isinstance(trunk, EnergyTransformer)
    values: list[Tensor] = []
    trunk.head.register_forward_hook(lambda *call: values.append(call[2]))
    energy = trunk(x, trunk.observe(features))
    assert values[0].shape == (3, 4, 2)
    torch.testing.assert_close(energy, values[0].sum(dim=(1, 2)) / 8)


def test_the_published_size_has_the_published_number_of_weights() -> None:
    trunk = build(EnergyTransformerConfig(), horizon=16, start=-1)
    assert isinstance(trunk, EnergyTransformer)
    count = {
        name: sum(p.numel() for p in blocks.parameters()) / 1e6
        for name, blocks in (("actions", trunk.action_blocks), ("observations", trunk.observation_blocks))
    }
    assert count["actions"] == pytest.approx(5.27, abs=0.005)
    assert count["observations"] == pytest.approx(3.16, abs=0.005)


@pytest.mark.parametrize(
    "config", [EnergyMLPConfig(width=12, dropout=0.5), EnergyTransformerConfig()], ids=IDS
)
def test_dropout_acts_in_training_only(config: EnergyTrunkConfig) -> None:
    trunk, (x, features) = build(config), inputs()
    one, other = (trunk(x, trunk.observe(features)) for _ in range(2))
    assert not torch.equal(one, other)
    trunk.eval()
    one, other = (trunk(x, trunk.observe(features)) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("config", TRUNKS, ids=IDS)
def test_a_baseline_network_of_the_same_size_exists(config: EnergyTrunkConfig) -> None:
    assert config.predicting().width == config.width


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EnergyMLPConfig, {"depth": 0}),
        (EnergyMLPConfig, {"dropout": 1.0}),
        (EnergyTransformerConfig, {"layers": 0}),
        (EnergyTransformerConfig, {"observation_layers": -1}),
        (EnergyTransformerConfig, {"heads": 3}),
        (EnergyTransformerConfig, {"attention_dropout": 1.0}),
    ],
)
def test_impossible_sizes_are_refused(kind: type, wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        kind(**wrong)
