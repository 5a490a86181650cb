import pytest
import torch

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.trunk import build_trunk
from sensorimotor.policies.unet import UNetConfig

TINY = UNetConfig(channels=(32, 64), kernel=3, step_width=32)


def build(config: UNetConfig, *, observation_dim: int = 5, horizon: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_trunk(
        config, action_dim=2, horizon=horizon, observation_steps=2, observation_dim=observation_dim
    )


@pytest.mark.parametrize(
    ("config", "observation_dim", "expected"),
    [
        (UNetConfig(), 5, 65_353_218),
        (UNetConfig(), 20, 65_783_298),
        (UNetConfig(kernel=3), 5, 42_676_738),
        (UNetConfig(scale=False), 5, 63_439_362),
        (TINY, 2, 178_946),
    ],
)
def test_parameter_counts_are_those_of_the_published_network(
    config: UNetConfig, observation_dim: int, expected: int
) -> None:
    with torch.device("meta"):
        network = build(config, observation_dim=observation_dim)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("levels", "horizon", "suggested"), [(3, 10, 12), (2, 7, 8)])
def test_a_horizon_that_cannot_be_halved_is_refused_with_one_that_can(
    levels: int, horizon: int, suggested: int
) -> None:
    with pytest.raises(ConfigError, match=f"got {horizon}; use {suggested}"):
        build(UNetConfig(channels=(8,) * levels, groups=8), horizon=horizon)


@pytest.mark.parametrize("horizon", [4, 8, 16])
def test_the_output_has_the_shape_of_the_chunk(horizon: int) -> None:
    x = torch.randn(3, horizon, 2)
    assert build(TINY, horizon=horizon)(x, torch.tensor(5.0), torch.randn(3, 2, 5)).shape == x.shape


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    network, x, c = build(TINY).eval(), torch.randn(4, 16, 2), torch.randn(4, 2, 5)
    step = torch.tensor([0.0, 3.0, 50.0, 99.0])
    together = network(x, step, c)
    for i in range(4):
        alone = network(x[i : i + 1], step[i : i + 1], c[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_scalar_step_holds_for_every_row() -> None:
    network, x, c = build(TINY).eval(), torch.randn(4, 16, 2), torch.randn(4, 2, 5)
    torch.testing.assert_close(network(x, torch.tensor(7.0), c), network(x, torch.full((4,), 7.0), c))


@pytest.mark.parametrize("what", ["chunk", "step", "condition"])
def test_the_output_depends_on_everything_that_is_given(what: str) -> None:
    network, x, step, c = build(TINY).eval(), torch.randn(1, 16, 2), torch.tensor(5.0), torch.randn(1, 2, 5)
    changed = (x + (what == "chunk"), step + 10 * (what == "step"), c + (what == "condition"))
    assert (network(x, step, c) - network(*changed)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "wrong", [{"channels": (10,)}, {"channels": ()}, {"kernel": 4}, {"step_width": 3}, {"step_width": 2}]
)
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        UNetConfig(**wrong)
