"""Convolution and transposed convolution, each computed as one matrix product, forward and backward.

Axes: N batch, C input channels, O output channels, G groups, K = kernel height * width, L the number of
positions of the kernel. `unfold` (im2col) copies the patch under each position into a column of C*K numbers;
`fold`, its transpose, adds the columns to an image.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import (
    ConvInit,
    Layer,
    NonNegativePair,
    ParameterSpec,
    PositivePair,
    Precision,
    Spec,
    Specs,
    weight_and_bias,
)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """Reshape (N, C, ...) to (N, G, C/G, L). No size is -1, which torch refuses for an empty batch."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def _kernel(weight: Tensor, groups: int) -> Tensor:
    """Reshape a weight (A, B, kh, kw) to one matrix for each group, (G, A/G, B * K)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def input_rows(rows: range, stride: int, span: int, before: int) -> range:
    """Return the input rows from which these output rows are computed.

    Args:
        rows: the output rows.
        stride: the distance between two positions of the kernel.
        span: the number of input rows under the kernel, dilation included.
        before: the padding before the first row.
    """
    first = rows.start * stride - before
    return range(first, first + (len(rows) - 1) * stride + span)


class _Channels(Layer):
    """The fields for the channels of a convolution, and their checks."""

    precision: ClassVar[Precision] = "compute"
    in_channels: PositiveInt | None = None
    out_channels: PositiveInt

    def channels(self, x: Spec, groups: int) -> int:
        """Return the number of input channels. Raises GraphError unless the fields allow it."""
        if len(x.shape) != 4:
            raise GraphError(f"expected an input N x C x H x W, got {x}")
        channels = x.shape[1]
        if self.in_channels not in (None, channels):
            raise GraphError(
                f"expected {self.in_channels} input channels, got {channels}. "
                f"Set in_channels: {channels}, or leave it out."
            )
        if channels % groups or self.out_channels % groups:
            raise GraphError(
                f"groups ({groups}) must divide the input channels ({channels}) and the output "
                f"channels ({self.out_channels})"
            )
        return channels


class Correlation(Layer):
    """A two-dimensional cross-correlation; subclasses declare its parameters.

    x: (N, C, H, W); weight: (O, C/G, kh, kw), whose shape determines the number G of groups; bias: (O,) or
    None. Backward keeps x.
    """

    precision: ClassVar[Precision] = "compute"
    kernel_size: PositivePair
    stride: PositivePair = (1, 1)
    padding: NonNegativePair | Literal["same", "valid"] = (0, 0)
    dilation: PositivePair = (1, 1)

    def __post_init__(self) -> None:
        if self.padding == "same" and self.stride != (1, 1):
            raise DescriptionError([Problem("'same' needs stride 1", "padding")])

    def pads(self) -> tuple[int, int, int, int]:
        """Return the padding: left, right, top, bottom."""
        if self.padding == "same":  # torch adds an odd row or column at the right and the bottom
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            (top, left), (high, wide) = (t // 2 for t in total), total
            return left, wide - left, top, high - top
        top, left = (0, 0) if isinstance(self.padding, str) else self.padding
        return left, left, top, top

    def places(self, x: torch.Size | tuple[int, ...]) -> tuple[int, int]:
        """Return the output's height and width. Raises GraphError if the kernel does not fit."""
        left, right, top, bottom = self.pads()
        sizes = (x[2] + top + bottom, x[3] + left + right)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        if sizes[0] < spans[0] or sizes[1] < spans[1]:
            raise GraphError(
                f"the kernel spans {spans[0]}x{spans[1]}, more than the padded input of "
                f"{sizes[0]}x{sizes[1]}"
            )
        height, width = (
            (z - k) // s + 1 for z, k, s in zip(sizes, spans, self.stride, strict=True)
        )
        return height, width

    def window(self, rows: range, axis: int) -> range | None:
        span = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        return input_rows(rows, self.stride[axis], span, self.pads()[2 - 2 * axis])

    def unfold(self, x: Tensor, groups: int) -> Tensor:
        """Copy the patches into columns, (N, G, C/G * K, L)."""
        padded = F.pad(x, self.pads())
        columns = F.unfold(padded, self.kernel_size, self.dilation, 0, self.stride)
        return _grouped(columns, groups)

    def fold(self, columns: Tensor, size: tuple[int, ...]) -> Tensor:
        """Add columns (N, G, C/G * K, L) to an image of shape `size`: the transpose of unfold."""
        left, right, top, bottom = self.pads()
        padded = (size[2] + top + bottom, size[3] + left + right)
        image = F.fold(
            columns.flatten(1, 2), padded, self.kernel_size, self.dilation, 0, self.stride
        )
        return F.pad(image, (-left, -right, -top, -bottom))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        groups = x.shape[1] // weight.shape[1]
        size = (x.shape[0], weight.shape[0], *self.places(x.shape))
        y = (_kernel(weight, groups) @ self.unfold(x, groups)).reshape(size)
        return y if bias is None else y + bias.view(-1, 1, 1)

    def absorb(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        moved = shift if bias is None else shift + bias * scale
        return weight * scale.view(-1, 1, 1, 1), moved

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        groups = x.shape[1] // weight.shape[1]
        g = _grouped(grad_y, groups)
        grad_x = grad_weight = grad_bias = None
        if "x" in wanted:
            grad_x = self.fold(_kernel(weight, groups).transpose(1, 2) @ g, tuple(x.shape))
        if "weight" in wanted:
            grad_weight = (g @ self.unfold(x, groups).transpose(2, 3)).sum(0).reshape(weight.shape)
        if "bias" in wanted:
            grad_bias = grad_y.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias


class Conv2d(Correlation, _Channels):
    """Two-dimensional convolution (cross-correlation), as torch.nn.Conv2d, computed as one matrix product.

    Eq. 1:  y = W unfold(x) + b,  with W as (O, C/G * K) and unfold(x) as (C/G * K, L) in each group.
    The gradients are convolutions too, and use the same columns. With g the gradient of y:
    eq. 2:  dW = g unfold(x)^T summed over the batch: x convolved with g (dilated by the stride);
    eq. 3:  dx = fold(W^T g): g (dilated by the stride) convolved with the rotated kernel;
    eq. 4:  db = the sum of g over batch and positions.

    x: (N, C, H, W); weight: (O, C/G, kh, kw); bias: (O,), none if the field `bias` is false;
    y: (N, O, H', W') with H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1. Any floating
    dtype. Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(C/G * K). With weight_init,
    the weight starts as graphnet.sdk.initializers.Init of that name states, and the bias is 0.
    padding "same" keeps H and W (stride 1 only), "valid" is 0.

    Raises:
        GraphError: the channels do not fit, or the kernel is larger than the padded input.
        DescriptionError: padding is "same" and the stride is not 1.

    >>> Conv2d(out_channels=64, kernel_size=3, padding=1).kernel_size
    (3, 3)
    """

    groups: PositiveInt = 1
    bias: bool = True
    weight_init: ConvInit | None = None

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = self.channels(specs["x"], self.groups)
        weight = (self.out_channels, channels // self.groups, *self.kernel_size)
        bias = (self.out_channels,) if self.bias else None
        return weight_and_bias(weight, bias, init=self.weight_init, groups=self.groups)


class TransposeConv2d(_Channels):
    """Transposed convolution, as torch.nn.ConvTranspose2d: the data gradient of a convolution as a layer.

    Eq. 5:  y = fold(W^T x) + b,  with W as (C/G, O/G * K): each input pixel adds its kernel to y.
    Eqs. 14-18 work this out on a 2x2 image. Backward is the convolution's forward:
    dx = W unfold(g);  dW = x unfold(g)^T summed over the batch;  db = the sum of g.

    x: (N, C, H, W); weight: (C, O/G, kh, kw); bias: (O,); y: (N, O, H', W') with
    H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1. Any floating dtype.
    Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(O/G * K). With weight_init, the
    weight starts as graphnet.sdk.initializers.Init of that name states, and the bias is 0.

    Raises:
        DescriptionError: output_padding is not smaller than the stride or the dilation of its axis.
        GraphError: the channels do not fit, or the output would be empty.
    """

    kernel_size: PositivePair
    stride: PositivePair = (1, 1)
    padding: NonNegativePair = (0, 0)
    output_padding: NonNegativePair = (0, 0)
    groups: PositiveInt = 1
    bias: bool = True
    dilation: PositivePair = (1, 1)
    weight_init: ConvInit | None = None

    def __post_init__(self) -> None:
        for out, stride, dilation in zip(
            self.output_padding, self.stride, self.dilation, strict=True
        ):
            if out >= max(stride, dilation):
                message = f"expected less than stride or dilation, found {self.output_padding}"
                raise DescriptionError([Problem(message, "output_padding")])

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = self.channels(specs["x"], self.groups)
        weight = (channels, self.out_channels // self.groups, *self.kernel_size)
        bias = (self.out_channels,) if self.bias else None
        return weight_and_bias(weight, bias, init=self.weight_init, groups=self.groups)

    def full(self, x: torch.Size | tuple[int, ...]) -> tuple[int, int]:
        """Return the output's height and width before the padding is cut off."""
        height, width = (
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(x[2:], self.stride, self.dilation, self.kernel_size, strict=True)
        )
        return height, width

    def crop(self, full: Tensor) -> Tensor:
        """Turn the full image into the output: add output_padding at the end, cut padding on each side."""
        (height, width), (top, left) = full.shape[2:], self.padding
        extra_h, extra_w = self.output_padding
        if height + extra_h - 2 * top < 1 or width + extra_w - 2 * left < 1:
            raise GraphError(
                f"padding {self.padding} leaves nothing of an output of {height}x{width}"
            )
        # In two steps, as the padding may cut into the rows that output_padding adds.
        return F.pad(F.pad(full, (0, extra_w, 0, extra_h)), (-left, -left, -top, -top))

    def window(self, rows: range, axis: int) -> range:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        first, last = rows.start + self.padding[axis], rows.stop - 1 + self.padding[axis]
        return range(-((reach - first) // stride), last // stride + 1)  # rounded up, and down

    def unfold(self, g: Tensor) -> Tensor:
        """Copy the gradient of the output into columns, (N, G, O/G * K, L), L the pixels of x."""
        (top, left), (extra_h, extra_w) = self.padding, self.output_padding
        full = F.pad(F.pad(g, (left, left, top, top)), (0, -extra_w, 0, -extra_h))
        columns = F.unfold(full, self.kernel_size, self.dilation, 0, self.stride)
        return _grouped(columns, self.groups)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        pixels = _grouped(x, self.groups)
        columns = (_kernel(weight, self.groups).transpose(1, 2) @ pixels).flatten(1, 2)
        full = F.fold(columns, self.full(x.shape), self.kernel_size, self.dilation, 0, self.stride)
        y = self.crop(full)
        return y if bias is None else y + bias.view(-1, 1, 1)

    def absorb(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        groups = scale.view(self.groups, 1, -1).expand(-1, weight.shape[0] // self.groups, -1)
        rows = groups.reshape(*weight.shape[:2], 1, 1)
        moved = shift if bias is None else shift + bias * scale
        return weight * rows, moved

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        grad_x = grad_weight = grad_bias = None
        if "x" in wanted or "weight" in wanted:
            columns = self.unfold(grad_y)
            pixels = _grouped(x, self.groups)
            if "x" in wanted:
                grad_x = (_kernel(weight, self.groups) @ columns).reshape(x.shape)
            if "weight" in wanted:
                grad_weight = (pixels @ columns.transpose(2, 3)).sum(0).reshape(weight.shape)
        if "bias" in wanted:
            grad_bias = grad_y.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias
