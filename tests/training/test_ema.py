"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from sensorimotor.data.errors import ConfigError
from sensorimotor.training.config import EmaConfig
from sensorimotor.training.ema import Ema, ema_decay


def filled(value: float) -> nn.Linear:
    layer = nn.Linear(3, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def averages(ema: Ema, model: nn.Module) -> list[torch.Tensor]:
    with ema.swapped():
        return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize(("update", "decay"), [(1, 0.0), (2, 0.405396), (100, 0.968377), (10_000, 0.999)])
def test_decay_follows_diffusion_policy(update: int, decay: float) -> None:
    assert ema_decay(update, EmaConfig()) == pytest.approx(decay, abs=5e-7)


def test_decay_is_capped() -> None:
    assert ema_decay(10**9, EmaConfig()) == 0.9999
    assert ema_decay(100, EmaConfig(max_decay=0.5)) == 0.5


def test_the_first_update_copies_and_the_second_mixes() -> None:
    model = filled(0.0)
    ema = Ema(model, EmaConfig())
    for value, expected in ((1.0, 1.0), (3.0, 1.0 + (1 - 0.4053964) * 2.0)):
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        ema.update()
        for average in averages(ema, model):
            torch.testing.assert_close(average, torch.full_like(average, expected))
    assert ema.updates == 2


def test_constant_weights_are_their_own_average() -> None:
    model = filled(0.7)
    ema = Ema(model, EmaConfig())
    for _ in range(20):
        ema.update()
    assert all(torch.equal(a, torch.full_like(a, 0.7)) for a in averages(ema, model))


def test_the_model_gets_its_own_weights_back_even_after_an_error() -> None:
    model = filled(1.0)
    ema = Ema(model, EmaConfig())
    nn.init.constant_(model.weight, 5.0)

    def fail_inside() -> None:
        with ema.swapped():
            assert torch.equal(model.weight, torch.ones(2, 3))
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert torch.equal(model.weight, torch.full((2, 3), 5.0))


def test_frozen_weights_are_the_models_own() -> None:
    model = filled(1.0)
    model.bias.requires_grad_(False)
    ema = Ema(model, EmaConfig())
    nn.init.constant_(model.bias, 9.0)
    weight, bias = averages(ema, model)
    assert torch.equal(weight, torch.ones(2, 3))
    assert torch.equal(bias, torch.full((2,), 9.0))


def test_the_average_does_not_disturb_gradients() -> None:
    model = filled(1.0)
    loss = model(torch.ones(1, 3)).sum()
    Ema(model, EmaConfig()).update()
    loss.backward()
    assert torch.equal(model.weight.grad, torch.ones(2, 3))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.SyncBatchNorm(4)])
def test_batch_normalisation_is_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    with pytest.raises(ConfigError, match=rf"{type(layer).__name__} at '1\.0'.*GroupNorm"):
        Ema(model, EmaConfig())
