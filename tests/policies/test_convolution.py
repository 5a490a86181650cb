"""Faster convolutions are the plain ones, in value and in every derivative."""

import pytest
import torch
from torch.nn import functional as F

from sensorimotor.policies import convolution
from sensorimotor.policies.convolution import Conv, Upsample


@pytest.mark.parametrize(
    "layer",
    [Conv(6, 10, 1), Conv(6, 10, 3), Conv(6, 10, 5), Conv(6, 10, 3, stride=2), Upsample(6)],
    ids=["1", "3", "5", "stride", "transposed"],
)
@pytest.mark.parametrize(("batch", "time"), [(1, 4), (2, 16), (2, 2), (1, 1), (3, 16)])
def test_the_matrix_product_is_the_convolution(layer: torch.nn.Module, batch: int, time: int) -> None:
    x = torch.randn(batch, 6, time, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast = layer(x)
    torch.testing.assert_close(fast, layer(x).detach(), atol=1e-5, rtol=1e-5)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the product for gradients of every size."""
    monkeypatch.setattr(convolution, "_MANY_WEIGHTS", 0)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("time", [1, 2, 4, 8])
@pytest.mark.usefixtures("always")
def test_gradients_are_those_of_the_convolution(kernel: int, time: int) -> None:
    layer = Conv(6, 10, kernel).double()
    x = torch.randn(3, 6, time, dtype=torch.float64, requires_grad=True)
    assert layer.bias is not None
    wanted = [x, layer.weight, layer.bias]
    mine = layer(x)
    assert "ProductGradient" in type(mine.grad_fn).__name__
    plain = F.conv1d(x, layer.weight, layer.bias, padding=kernel // 2)
    torch.testing.assert_close(mine, plain)
    seed = torch.randn_like(mine)
    for a, b in zip(
        torch.autograd.grad(mine, wanted, seed), torch.autograd.grad(plain, wanted, seed), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("always")
def test_gradients_of_gradients_are_right_too() -> None:
    layer = Conv(2, 3, 3).double()
    x = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).tanh(), (x,))


@pytest.mark.usefixtures("always")
def test_stacked_members_can_be_differentiated_at_once() -> None:
    layer, x = Conv(2, 3, 3), torch.randn(5, 2, 2, 4)

    def loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,)).square().sum()

    weights = torch.randn(5, 3, 2, 3)
    together = torch.func.vmap(torch.func.grad(loss))(weights, x)
    for i in range(5):
        torch.testing.assert_close(together[i], torch.func.grad(loss)(weights[i], x[i]), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("always")
def test_under_autocast_the_plain_convolution_is_used() -> None:
    layer, x = Conv(6, 10, 3), torch.randn(3, 6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.grad is not None
