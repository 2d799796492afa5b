"""The modules of convolutions, with torch's arguments: plain, depthwise and transposed, in 1-D to 3-D."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from graphnet.nn.module import Module, layer_named
from graphnet.sdk import Layer, Spec

Size = int | tuple[int, ...]
"""One number for all spatial axes, or one for each."""
Border = Literal["zeros", "reflect", "replicate", "circular"]


class _Convolution(Module):
    """A module that makes its parameters at once, from the number of input channels."""

    _name: ClassVar[str]
    _axes: ClassVar[int]

    def _start(self, layer: Layer, in_channels: int, **options: Any) -> None:
        dtype = options.get("dtype") or torch.get_default_dtype()
        spec = Spec((1, in_channels, *(1,) * self._axes), dtype)
        super().__init__(layer, specs=[spec], **options)


class _Conv(_Convolution):
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
        padding_mode: Border = "zeros",
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
        )
        self._start(layer, in_channels, **options)


class Conv1d(_Conv):
    """One-dimensional convolution, with the arguments of torch.nn.Conv1d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> Conv1d(3, 8, kernel_size=3, padding=1)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 8, 4])
    """

    _name = "conv1d"
    _axes = 1


class Conv2d(_Conv):
    """Two-dimensional convolution, with the arguments of torch.nn.Conv2d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> Conv2d(3, 8, kernel_size=3, padding=1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    _name = "conv2d"
    _axes = 2


class Conv3d(_Conv):
    """Three-dimensional convolution, with the arguments of torch.nn.Conv3d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> Conv3d(3, 8, kernel_size=3, padding=1)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 8, 4, 4, 4])
    """

    _name = "conv3d"
    _axes = 3


class _DepthwiseConv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        dilation: Size = 1,
        bias: bool = True,
        padding_mode: Border = "zeros",
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=bias,
            padding_mode=padding_mode,
        )
        self._start(layer, in_channels, **options)


class DepthwiseConv1d(_DepthwiseConv):
    """One-dimensional convolution of each channel with its own kernel: Conv1d with one group for each.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> DepthwiseConv1d(8, kernel_size=3, padding=1)(torch.ones(1, 8, 4)).shape
    torch.Size([1, 8, 4])
    """

    _name = "depthwise_conv1d"
    _axes = 1


class DepthwiseConv2d(_DepthwiseConv):
    """Two-dimensional convolution of each channel with its own kernel: Conv2d with one group for each.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> DepthwiseConv2d(8, kernel_size=3, padding=1)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    _name = "depthwise_conv2d"
    _axes = 2


class DepthwiseConv3d(_DepthwiseConv):
    """Three-dimensional convolution of each channel with its own kernel: Conv3d with one group for each.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> DepthwiseConv3d(8, kernel_size=3, padding=1)(torch.ones(1, 8, 4, 4, 4)).shape
    torch.Size([1, 8, 4, 4, 4])
    """

    _name = "depthwise_conv3d"
    _axes = 3


class _TransposeConv(_Convolution):
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
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
            dilation=dilation,
        )
        self._start(layer, in_channels, **options)


class TransposeConv1d(_TransposeConv):
    """Transposed convolution, with the arguments of torch.nn.ConvTranspose1d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> TransposeConv1d(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4)).shape
    torch.Size([1, 3, 8])
    """

    _name = "transpose_conv1d"
    _axes = 1


class TransposeConv2d(_TransposeConv):
    """Transposed convolution, with the arguments of torch.nn.ConvTranspose2d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> TransposeConv2d(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    _name = "transpose_conv2d"
    _axes = 2


class TransposeConv3d(_TransposeConv):
    """Transposed convolution, with the arguments of torch.nn.ConvTranspose3d.

    Args:
        options: device, dtype and generator of the parameters, as for Module.

    >>> TransposeConv3d(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4, 4, 4)).shape
    torch.Size([1, 3, 8, 8, 8])
    """

    _name = "transpose_conv3d"
    _axes = 3


class Upsampling(TransposeConv2d):
    """The upsampling layer of the paper, which is a transposed convolution.

    >>> Upsampling(8, 3, kernel_size=2, stride=2)(torch.ones(1, 8, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    _name = "upsampling"
