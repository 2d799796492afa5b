"""Convolution and transposed convolution as one matrix product, forward and backward.

Axes: N batch, C input channels, O output channels, G groups, K = kernel height * width, L the number
of places of the kernel. `unfold` lays the patch under each place out as a column of C*K numbers,
`fold` adds columns back into an image: it is the transpose of unfold.
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
    """(N, C, ...) as (N, G, C/G, L). Every size is stated: -1 is refused for an empty batch."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def _kernel(weight: Tensor, groups: int) -> Tensor:
    """The weight (A, B, kh, kw) as the matrices of all groups, (G, A/G, B * K)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def under(rows: range, stride: int, span: int, before: int) -> range:
    """The rows under a kernel that spans `span` of them, at these places, with so much padding before."""
    first = rows.start * stride - before
    return range(first, first + (len(rows) - 1) * stride + span)


class _Channels(Layer):
    """What the two convolutions share: their channels and the checks on them."""

    precision: ClassVar[Precision] = "compute"
    in_channels: PositiveInt | None = None
    out_channels: PositiveInt

    def channels(self, x: Spec, groups: int) -> int:
        """The input channels, checked against the configuration."""
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
    """A two-dimensional cross-correlation with the weight at hand, which also says how channels are grouped.

    x: (N, C, H, W); weight: (O, C/G, kh, kw); bias: (O,) or None. Backward keeps x. Subclasses say which
    parameters there are.
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
        """Left, right, top, bottom."""
        if self.padding == "same":  # torch puts the odd one to the right and below
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            (top, left), (high, wide) = (t // 2 for t in total), total
            return left, wide - left, top, high - top
        top, left = (0, 0) if isinstance(self.padding, str) else self.padding
        return left, left, top, top

    def places(self, x: torch.Size | tuple[int, ...]) -> tuple[int, int]:
        """The output's height and width."""
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
        return under(rows, self.stride[axis], span, self.pads()[2 - 2 * axis])

    def unfold(self, x: Tensor, groups: int) -> Tensor:
        """The patches as columns: (N, G, C/G * K, L)."""
        padded = F.pad(x, self.pads())
        columns = F.unfold(padded, self.kernel_size, self.dilation, 0, self.stride)
        return _grouped(columns, groups)

    def fold(self, columns: Tensor, size: tuple[int, ...]) -> Tensor:
        """The transpose of unfold: add columns (N, G, C/G * K, L) into an image of shape `size`."""
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
    """Two-dimensional cross-correlation, as torch.nn.Conv2d, computed as one matrix product.

    Eq. 1:  y = W unfold(x) + b,  with W as (O, C/G * K) and unfold(x) as (C/G * K, L) in each group.
    The gradients are convolutions again, evaluated on the same columns:
    eq. 2:  dW = g unfold(x)^T summed over the batch: x convolved with g (dilated by the stride);
    eq. 3:  dx = fold(W^T g): g (dilated by the stride) convolved with the rotated kernel;
    eq. 4:  db = the sum of g over batch and places.

    x: (N, C, H, W); weight: (O, C/G, kh, kw); bias: (O,); y: (N, O, H', W') with
    H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1. Any floating dtype.
    Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(C/G * K); with
    weight_init as graphnet.sdk.initializers.Init of that name, and the bias at 0.
    padding "same" keeps H and W (stride 1 only), "valid" is 0.
    Raises GraphError when the channels do not fit or the kernel is larger than the padded input.

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
    """The transpose of a convolution, as torch.nn.ConvTranspose2d: it turns the data gradient around.

    Eq. 5:  y = fold(W^T x) + b,  with W as (C/G, O/G * K): each input pixel adds its kernel to y.
    Eqs. 14-18 work this out on a 2x2 image. Backward is the convolution's forward:
    dx = W unfold(g);  dW = x unfold(g)^T summed over the batch;  db = the sum of g.

    x: (N, C, H, W); weight: (C, O/G, kh, kw); bias: (O,); y: (N, O, H', W') with
    H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1. Any floating dtype.
    Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(O/G * K); with
    weight_init as graphnet.sdk.initializers.Init of that name, and the bias at 0.
    Raises DescriptionError unless output_padding is smaller than stride or dilation on each axis,
    GraphError when the channels do not fit or the output would be empty.
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
        """Height and width before padding is cut off."""
        height, width = (
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(x[2:], self.stride, self.dilation, self.kernel_size, strict=True)
        )
        return height, width

    def crop(self, full: Tensor) -> Tensor:
        """The output in the full image: longer by output_padding, then cut by padding all around."""
        (height, width), (top, left) = full.shape[2:], self.padding
        extra_h, extra_w = self.output_padding
        if height + extra_h - 2 * top < 1 or width + extra_w - 2 * left < 1:
            raise GraphError(
                f"padding {self.padding} leaves nothing of an output of {height}x{width}"
            )
        # Two steps: the padding may cut into what output_padding adds.
        return F.pad(F.pad(full, (0, extra_w, 0, extra_h)), (-left, -left, -top, -top))

    def window(self, rows: range, axis: int) -> range:
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        first, last = rows.start + self.padding[axis], rows.stop - 1 + self.padding[axis]
        return range(-((reach - first) // stride), last // stride + 1)  # rounded up, and down

    def unfold(self, g: Tensor) -> Tensor:
        """A gradient of the output as columns: (N, G, O/G * K, L), L the pixels of x."""
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
