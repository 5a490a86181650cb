import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.mlp import MLPConfig, PreciseLinear
from sensorimotor.policies.trunk import build_trunk


def build(config: MLPConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_trunk(config, action_dim=2, horizon=4, observation_steps=2, observation_dim=3)


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, c = torch.randn(batch, 4, 2, generator=generator), torch.randn(batch, 2, 3, generator=generator)
    return x, torch.full((batch,), 300.0), c


@pytest.mark.parametrize("modulation", [False, True])
def test_at_the_start_every_block_passes_its_input_on(modulation: bool) -> None:
    config = MLPConfig(width=32, depth=2, modulation=modulation, step_width=16)
    deep, (x, step, c) = build(config), inputs()
    shallow = build(config)
    shallow.blocks = torch.nn.ModuleList()
    torch.testing.assert_close(deep(x, step, c), shallow(x, step, c))


def test_depth_width_and_expansion_set_the_size() -> None:
    width, expansion, depth, step_width = 32, 3, 2, 16
    condition = 2 * 3 + step_width
    blocks = 2 * width + (width + 1) * width * expansion + (width * expansion + 1) * width
    expected = (4 * 2 + condition + 1) * width + depth * blocks + 2 * width + (width + 1) * 4 * 2
    network = build(MLPConfig(width=width, expansion=expansion, depth=depth, step_width=step_width))
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("what", ["chunk", "step", "condition"])
def test_modulation_carries_the_condition_into_every_block(what: str) -> None:
    network = build(MLPConfig(width=32, depth=2, modulation=True)).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, step, c = inputs()
    changed = (x + (what == "chunk"), step + 100 * (what == "step"), c + (what == "condition"))
    assert (network(x, step, c) - network(*changed)).abs().max() > 1e-3


def test_a_scalar_step_holds_for_every_row() -> None:
    network, (x, step, c) = build(MLPConfig(width=32)), inputs()
    torch.testing.assert_close(network(x, torch.tensor(300.0), c), network(x, step, c))


def test_dropout_acts_in_training_only() -> None:
    network, (x, step, c) = build(MLPConfig(width=32, dropout=0.5)), inputs()
    torch.nn.init.normal_(network.blocks[0].narrow.weight)  # pyright: ignore
    assert not torch.equal(network(x, step, c), network(x, step, c))
    network.eval()
    torch.testing.assert_close(network(x, step, c), network(x, step, c))


def test_the_first_and_last_layer_stay_exact_under_autocast() -> None:
    torch.manual_seed(0)
    layer, x = PreciseLinear(8, 4), torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer.forward(x))
        assert layer(x).dtype == torch.float32
        inside = layer(x)
    assert torch.equal(inside, layer(x))


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"depth": 0}, {"expansion": 0}, {"dropout": 1.0}, {"step_width": 5}]
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MLPConfig(**wrong)
