"""The modules of the paper: convolutions, upsampling, activations and the loss."""

from __future__ import annotations

from typing import Any, Literal

import torch

from graphnet.nn.module import Module, layer_named
from graphnet.sdk import Layer, Spec

Size = int | tuple[int, int]


class _Convolution(Module):
    """A module that makes its parameters at once, from the number of input channels."""

    def _start(self, layer: Layer, in_channels: int, **options: Any) -> None:
        dtype = options.get("dtype") or torch.get_default_dtype()
        super().__init__(layer, specs=[Spec((1, in_channels, 1, 1), dtype)], **options)


class Conv2d(_Convolution):
    """Two-dimensional convolution, with the arguments of torch.nn.Conv2d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> Conv2d(3, 8, kernel_size=3, padding=1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        **options: Any,
    ) -> None:
        layer = layer_named(
            "conv2d",
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=_pair(kernel_size),
            stride=_pair(stride),
            padding=padding if isinstance(padding, str) else _pair(padding),
            dilation=_pair(dilation),
            groups=groups,
            bias=bias,
        )
        self._start(layer, in_channels, **options)


class TransposeConv2d(_Convolution):
    """Transposed convolution, with the arguments of torch.nn.ConvTranspose2d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> TransposeConv2d(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    _name = "transpose_conv2d"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=_pair(kernel_size),
            stride=_pair(stride),
            padding=_pair(padding),
            output_padding=_pair(output_padding),
            groups=groups,
            bias=bias,
            dilation=_pair(dilation),
        )
        self._start(layer, in_channels, **options)


class Upsampling(TransposeConv2d):
    """The upsampling layer of the paper, which is a transposed convolution.

    >>> Upsampling(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    _name = "upsampling"


class NearestUpsampling(Module):
    """Repeats each pixel in a block of `scale_factor` pixels: one integer, or (height, width).

    >>> NearestUpsampling(2)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(self, scale_factor: Size, **options: Any) -> None:
        super().__init__(
            layer_named("nearest_upsampling", scale_factor=_pair(scale_factor)), **options
        )


class ReLU(Module):
    """max(x, 0), elementwise.

    >>> ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("relu"), **options)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise.

    >>> Sigmoid()(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("sigmoid"), **options)


class MSE(Module):
    """The mean squared error of (prediction, target); `backward()` returns the prediction's gradient.

    >>> criterion = MSE()
    >>> float(criterion(torch.ones(2), torch.zeros(2)))
    1.0
    >>> criterion.backward()
    tensor([1., 1.])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("mse"), **options)


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
