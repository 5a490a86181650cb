"""Convolutions over short stretches of time, as fast on a CPU as matrix products can make them.

torch's convolutions on CPUs first copy the weights into a layout of their own, and their weight gradient is slow where
there are many channels and few time steps: both are the rule in a U-Net over an action chunk. Numbers are those of the
plain convolution up to rounding. Shapes: B batch, C channels, T steps in time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv1d_input

# Measured with 64 to 2048 channels, 3 and 5 taps and 1 to 256 rows, on one thread of a server CPU.
_FEW_COLUMNS = 32  # rows x time up to which a product beats the convolution without gradients
_SHORT, _MANY_WEIGHTS = (
    8,
    2_000_000,
)  # time steps up to, and weights from which, a product beats the weight gradient


class Conv(nn.Conv1d):
    """A padded convolution; with stride 1 time keeps its length, with stride 2 it is halved."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        """Kernels are odd."""
        super().__init__(inputs, outputs, kernel, stride=stride, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T / stride)."""
        if _few(input):
            taps, stride = self.kernel_size[0], self.stride[0]
            out = F.linear(_windows(input, taps, stride), self.weight.flatten(1), self.bias)
            return out.transpose(1, 2)
        if self._slow_gradient(input):
            return _ProductGradient.apply(input, self.weight, self.bias)
        return super().forward(input)

    def _slow_gradient(self, x: Tensor) -> bool:
        return (
            x.shape[2] <= _SHORT
            and self.weight.numel() >= _MANY_WEIGHTS
            and self.stride[0] == 1
            and x.device.type == "cpu"
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )


class Upsample(nn.ConvTranspose1d):
    """A transposed convolution that doubles time, with four taps two steps apart."""

    def __init__(self, channels: int) -> None:
        """The number of channels stays."""
        super().__init__(channels, channels, 4, stride=2, padding=1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, T) to (B, C, 2 T)."""
        if not _few(input):
            return super().forward(input, output_size)
        batch, channels, time = input.shape
        taps = (input.transpose(1, 2) @ self.weight.flatten(1)).view(batch, time, channels, 4)
        # Output 2t sums tap 1 of input t and tap 3 of t - 1; output 2t + 1 sums tap 2 of t and tap 0 of t + 1.
        out = taps[..., 1:3].clone()
        out[:, 1:, :, 0] += taps[:, :-1, :, 3]
        out[:, :-1, :, 1] += taps[:, 1:, :, 0]
        out = out.permute(0, 2, 1, 3).reshape(batch, channels, 2 * time)
        return out if self.bias is None else out + self.bias[:, None]


class _ProductGradient(torch.autograd.Function):
    """A convolution of stride 1 whose weight gradient is one matrix product; differentiable again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore
        return F.conv1d(x, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        taps = weight.shape[2]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = conv1d_input(x.shape, weight, gradient, padding=taps // 2)
        if ctx.needs_input_grad[1]:
            rows = gradient.transpose(1, 2).flatten(0, 1)  # (B T, C')
            of_weight = (rows.t() @ _windows(x, taps, 1).flatten(0, 1)).view_as(weight)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2))
        return of_x, of_weight, of_bias


def _few(x: Tensor) -> bool:
    """Whether a matrix product is the faster way to convolve x without gradients."""
    return x.shape[0] * x.shape[2] <= _FEW_COLUMNS and x.device.type == "cpu" and not torch.is_grad_enabled()


def _windows(x: Tensor, taps: int, stride: int) -> Tensor:
    """What each output of a convolution sees of x (B, C, T): (B, T', C * taps)."""
    padded = F.pad(x, (taps // 2, taps // 2)) if taps > 1 else x
    return padded.unfold(2, taps, stride).transpose(1, 2).flatten(2)
