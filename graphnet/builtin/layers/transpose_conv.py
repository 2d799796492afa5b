"""Transposed convolution over one, two or three axes, computed as one matrix product, forward and backward.

Axes and letters are those of graphnet.builtin.layers.conv.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from graphnet.builtin.layers.conv import (
    Channels,
    add_bias,
    bias_gradient,
    grouped,
    kernels_of,
)
from graphnet.builtin.layers.windows import Windows
from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import (
    ConvInit,
    NonNegativeSizes,
    ParameterSpec,
    PositiveSizes,
    Specs,
    by,
    weight_and_bias,
)


class TransposeConvolution(Channels):
    """Transposed convolution over any number of axes: the data gradient of a convolution as a layer.

    Eq. 5:  y = fold(W^T x) + b,  with W as (C/G, O/G * K): each input pixel adds its kernel to y.
    Eqs. 14-18 work this out on a 2x2 image. Backward is the convolution's forward:
    dx = W unfold(g);  dW = x unfold(g)^T summed over the batch;  db = the sum of g.

    x: (N, C, *S); weight: (C, O/G, *kernel_size); bias: (O,); y: (N, O, *S') with
    S' = (S - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 on each axis. Any floating
    dtype. Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(O/G * K). With weight_init,
    the weight starts as graphnet.sdk.initializers.Init of that name states, and the bias is 0.

    Raises:
        DescriptionError: output_padding is not smaller than the stride or the dilation of its axis.
        GraphError: the axes or channels do not fit, or the output would be empty.
    """

    kernel_size: PositiveSizes
    stride: PositiveSizes = (1,)
    padding: NonNegativeSizes = (0,)
    output_padding: NonNegativeSizes = (0,)
    groups: PositiveInt = 1
    bias: bool = True
    dilation: PositiveSizes = (1,)
    weight_init: ConvInit | None = None

    def __post_init__(self) -> None:
        for out, stride, dilation in zip(
            self.output_padding, self.stride, self.dilation, strict=True
        ):
            if out >= max(stride, dilation):
                message = f"expected less than stride or dilation, found {self.output_padding}"
                raise DescriptionError([Problem(message, "output_padding")])

    @property
    def windows(self) -> Windows:
        """The positions of the kernel in the output, before the padding is cut off."""
        return Windows(self.kernel_size, self.stride, self.dilation)

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = self.channels(specs["x"], self.groups)
        weight = (channels, self.out_channels // self.groups, *self.kernel_size)
        bias = (self.out_channels,) if self.bias else None
        return weight_and_bias(weight, bias, init=self.weight_init, groups=self.groups)

    def full(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output's sizes before the padding is cut off."""
        steps = zip(self.sizes(x), self.stride, self.windows.spans, strict=True)
        return tuple((n - 1) * step + span for n, step, span in steps)

    def crop(self, full: Tensor) -> Tensor:
        """Turn the full image into the output: add output_padding at the end, cut padding on each side."""
        sizes = zip(full.shape[2:], self.output_padding, self.padding, strict=True)
        if any(n + extra - 2 * pad < 1 for n, extra, pad in sizes):
            raise GraphError(
                f"padding {self.padding} leaves nothing of an output of {by(full.shape[2:])}"
            )
        # In two steps, as the padding may cut into the rows that output_padding adds.
        return F.pad(F.pad(full, self._extra(1)), self._padding(-1))

    def window(self, rows: range, axis: int) -> range:
        stride, reach = self.stride[axis], self.windows.spans[axis] - 1
        first, last = rows.start + self.padding[axis], rows.stop - 1 + self.padding[axis]
        return range(-((reach - first) // stride), last // stride + 1)  # rounded up, and down

    def unfold(self, g: Tensor) -> Tensor:
        """Copy the gradient of the output into columns, (N, G, O/G * K, P), P the pixels of x."""
        full = F.pad(F.pad(g, self._padding(1)), self._extra(-1))
        return grouped(self.windows.unfold(full), self.groups)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pixels = grouped(x, self.groups)
        columns = (kernels_of(weight, self.groups).transpose(1, 2) @ pixels).flatten(1, 2)
        return add_bias(self.crop(self.windows.fold(columns, self.full(x.shape))), bias)

    def absorb(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        groups = scale.view(self.groups, 1, -1).expand(-1, weight.shape[0] // self.groups, -1)
        rows = groups.reshape(*weight.shape[:2], *(1,) * self.axes)
        moved = shift if bias is None else shift + bias * scale
        return weight * rows, moved

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        grad_x = grad_weight = grad_bias = None
        if "x" in wanted or "weight" in wanted:
            columns = self.unfold(grad_y)
            pixels = grouped(x, self.groups)
            if "x" in wanted:
                grad_x = (kernels_of(weight, self.groups) @ columns).reshape(x.shape)
            if "weight" in wanted:
                grad_weight = (pixels @ columns.transpose(2, 3)).sum(0).reshape(weight.shape)
        if "bias" in wanted:
            grad_bias = bias_gradient(grad_y)
        return grad_x, grad_weight, grad_bias

    def _padding(self, sign: int) -> list[int]:
        """The padding for F.pad, the last axis first."""
        return [sign * side for pad in reversed(self.padding) for side in (pad, pad)]

    def _extra(self, sign: int) -> list[int]:
        """The output_padding for F.pad, which adds it after the image."""
        return [side for extra in reversed(self.output_padding) for side in (0, sign * extra)]


class TransposeConv1d(TransposeConvolution, axes=1):
    """Transposed convolution, as torch.nn.ConvTranspose1d: the data gradient of a convolution as a layer.

    The equations, fields and errors are those of `TransposeConvolution`. x: (N, C, L); weight: (C, O/G, k).

    >>> TransposeConv1d(out_channels=3, kernel_size=2, stride=2).full((1, 8, 5))
    (10,)
    """


class TransposeConv2d(TransposeConvolution, axes=2):
    """Transposed convolution, as torch.nn.ConvTranspose2d: the data gradient of a convolution as a layer.

    The equations, fields and errors are those of `TransposeConvolution`. x: (N, C, H, W);
    weight: (C, O/G, kh, kw).

    >>> TransposeConv2d(out_channels=3, kernel_size=2, stride=2).full((1, 8, 5, 4))
    (10, 8)
    """


class TransposeConv3d(TransposeConvolution, axes=3):
    """Transposed convolution, as torch.nn.ConvTranspose3d: the data gradient of a convolution as a layer.

    The equations, fields and errors are those of `TransposeConvolution`. x: (N, C, D, H, W);
    weight: (C, O/G, kd, kh, kw).

    >>> TransposeConv3d(out_channels=3, kernel_size=2, stride=2).full((1, 8, 5, 4, 3))
    (10, 8, 6)
    """
