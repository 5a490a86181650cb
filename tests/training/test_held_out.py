"""The held-out loss is the same number for the same weights."""

import math

import torch
from torch import Tensor, nn
from toy_training import ToyBatch, ToyData, ToyModel

from sensorimotor.training.held_out import evaluation_mode, held_out_loss
from sensorimotor.training.workers import Workers

ALONE = Workers(torch.device("cpu"))


def loss_of(model: nn.Module, data: ToyData, *, limit: int = 16, size: int = 8) -> float:
    return held_out_loss(model, data, ALONE, limit=limit, size=size, seed=0)


def test_it_repeats_although_loss_and_layers_are_random() -> None:
    model, data = ToyModel(dropout=0.5, noise=1.0), ToyData(20)
    first = loss_of(model, data)
    torch.rand(3)
    assert loss_of(model, data) == first


def test_a_short_last_slice_weighs_what_it_holds() -> None:
    model, data = ToyModel(noise=0.0), ToyData(10)
    with torch.no_grad(), evaluation_mode(model):
        whole = model(ToyBatch(data.x, data.y), torch.Generator())
    assert abs(loss_of(model, data, limit=10, size=4) - float(whole)) < 1e-6


def test_modes_come_back_as_they_were() -> None:
    model = ToyModel()
    model.train()
    model.network[2].eval()  # frozen on purpose
    loss_of(model, ToyData(20))
    assert [module.training for module in model.network] == [True, True, False, True]


def test_no_gradient_is_kept_but_a_loss_may_take_its_own() -> None:
    class EnergyLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.eye(6))

        def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
            with torch.enable_grad():
                x = batch.x.clone().requires_grad_(True)
                energy = 0.5 * (x @ self.matrix * x).sum()
                (force,) = torch.autograd.grad(energy, x)
            return (force - batch.x).square().mean()

    model = EnergyLoss()
    assert loss_of(model, ToyData(20)) == 0.0  # the gradient of |x|^2 / 2 is x
    assert model.matrix.grad is None


def test_processes_share_the_slices_and_agree() -> None:
    class Half(Workers):
        def sum(self, x: Tensor) -> Tensor:
            parts.append(x.clone())
            return x

    parts: list[Tensor] = []
    model, data = ToyModel(), ToyData(40)
    for rank in range(2):
        held_out_loss(model, data, Half(torch.device("cpu"), rank, 2), limit=24, size=4, seed=0)
    assert (parts[0] * parts[1] == 0).all()
    together = math.fsum((parts[0] + parts[1]).tolist()) / 24
    assert together == loss_of(model, data, limit=24, size=4)
