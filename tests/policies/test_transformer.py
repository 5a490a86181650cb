import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.transformer import TransformerConfig, memory_mask
from sensorimotor.policies.trunk import build_trunk

TINY = TransformerConfig(width=64, layers=2)


def build(config: TransformerConfig = TINY) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_trunk(config, action_dim=2, horizon=6, observation_steps=3, observation_dim=5).eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, c = (
        torch.randn(batch, 6, 2, generator=generator),
        torch.randn(batch, 3, 5, generator=generator),
    )
    return x, torch.full((batch,), 4.0), c


@pytest.mark.parametrize(
    ("config", "sizes", "expected"),
    [
        (TransformerConfig(), (10, 10, 3, 19), 8_967_690),
        (TINY, (2, 16, 2, 5), 168_642),
    ],
)
def test_parameter_counts_are_those_of_the_published_network(
    config: TransformerConfig, sizes: tuple[int, int, int, int], expected: int
) -> None:
    names = ("action_dim", "horizon", "observation_steps", "observation_dim")
    network = build_trunk(config, **dict(zip(names, sizes, strict=True)))
    assert sum(p.numel() for p in network.parameters()) == expected


def test_only_the_first_action_is_kept_from_the_second_observation() -> None:
    hidden = torch.isinf(memory_mask(5, 2))
    assert hidden.nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("changed", range(6))
def test_an_action_sees_no_later_action(changed: int) -> None:
    network, (x, step, c) = build(), inputs()
    other = x.clone()
    other[:, changed] += 1
    difference = (network(x, step, c) - network(other, step, c)).abs().amax(dim=(0, 2))
    assert (difference[:changed] == 0).all()
    assert (difference[changed:] > 1e-6).all()


@pytest.mark.parametrize("changed", range(3))
def test_an_action_sees_observations_up_to_its_own_time(changed: int) -> None:
    network, (x, step, c) = build(), inputs()
    other = c.clone()
    other[:, changed] += 1
    difference = (network(x, step, c) - network(x, step, other)).abs().amax(dim=(0, 2))
    assert (difference[:changed] == 0).all()
    assert (difference[changed:] > 1e-7).all()


def test_without_causality_every_action_sees_every_other() -> None:
    network, (x, step, c) = build(TransformerConfig(width=64, layers=2, causal=False)), inputs()
    other = x.clone()
    other[:, -1] += 1
    assert ((network(x, step, c) - network(other, step, c)).abs().amax(dim=(0, 2)) > 1e-6).all()


@pytest.mark.parametrize("condition_layers", [0, 2])
def test_the_output_depends_on_the_step(condition_layers: int) -> None:
    network = build(TransformerConfig(width=64, layers=2, condition_layers=condition_layers))
    x, step, c = inputs()
    assert (network(x, step, c) - network(x, step + 50, c)).abs().max() > 1e-6


def test_a_scalar_step_holds_for_every_row() -> None:
    network, (x, step, c) = build(), inputs()
    torch.testing.assert_close(network(x, torch.tensor(4.0), c), network(x, step, c))


def test_weights_start_small_and_biases_at_zero() -> None:
    layers = [
        m for m in build(TransformerConfig(width=128, layers=2)).modules() if isinstance(m, torch.nn.Linear)
    ]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    "wrong", [{"width": 30, "heads": 4}, {"layers": 0}, {"attention_dropout": 1.0}, {"condition_layers": -1}]
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TransformerConfig(**wrong)
