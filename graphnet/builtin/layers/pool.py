"""Pooling: the largest value or the mean of each window, and the mean of a whole image.

Axes: N batch, C channels, H and W of the image, H' and W' of the output, K = kernel height * width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.layers.conv import input_rows
from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import Layer, NonNegativePair, PositivePair, Precision, Specs

_Place = tuple[slice, slice]


class _Pooling(Layer):
    """The base of both poolings: the positions of the windows."""

    kernel_size: PositivePair
    stride: PositivePair | None = None
    padding: NonNegativePair = (0, 0)

    def __post_init__(self) -> None:
        if any(2 * pad > k for pad, k in zip(self.padding, self.kernel_size, strict=True)):
            message = (
                f"expected at most half of kernel_size {self.kernel_size}, found {self.padding}"
            )
            raise DescriptionError([Problem(message, "padding")])

    @property
    def steps(self) -> tuple[int, int]:
        """The distance between two windows: the stride, by default the kernel size."""
        return self.stride or self.kernel_size

    @property
    def spread(self) -> tuple[int, int]:
        """The dilation: the distance between two pixels of a window."""
        return 1, 1

    @property
    def spans(self) -> tuple[int, int]:
        """The height and width of a window, with its gaps."""
        (high, wide), (dh, dw) = self.kernel_size, self.spread
        return dh * (high - 1) + 1, dw * (wide - 1) + 1

    def size(self, x: tuple[int, ...]) -> tuple[int, int]:
        """Return the output's height and width. Raises GraphError if x is no image, or is too small."""
        if len(x) != 4:
            raise GraphError(f"expected an input N x C x H x W, got {tuple(x)}")
        padded = [n + 2 * pad for n, pad in zip(x[2:], self.padding, strict=True)]
        if any(n < span for n, span in zip(padded, self.spans, strict=True)):
            raise GraphError(
                f"the kernel spans {self.spans[0]}x{self.spans[1]}, more than the padded input of "
                f"{padded[0]}x{padded[1]}"
            )
        if any(d > n for n, d, pad in zip(x[2:], self.spread, self.padding, strict=True) if pad):
            raise GraphError(
                f"dilation {self.spread} is larger than the image of {x[2]}x{x[3]}: all pixels of a "
                f"window could lie in the padding. Choose a smaller dilation, or no padding."
            )
        height, width = (
            (n - span) // step + 1
            for n, span, step in zip(padded, self.spans, self.steps, strict=True)
        )
        return height, width

    def places(self, x: tuple[int, ...]) -> list[_Place]:
        """Return slices of the padded image: for each pixel of a window, that pixel in all windows."""
        axes = [
            [slice(i * gap, i * gap + (count - 1) * step + 1, step) for i in range(length)]
            for length, gap, step, count in zip(
                self.kernel_size, self.spread, self.steps, self.size(x), strict=True
            )
        ]
        return [(rows, columns) for rows in axes[0] for columns in axes[1]]

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Add a border of one value to the image."""
        top, left = self.padding
        return F.pad(x, (left, left, top, top), value=value)

    def fold(self, parts: Iterable[Tensor], zeros: Tensor) -> Tensor:
        """Add each part to the pixels of its slice from `places`, in an image of zeros."""
        padded = self.pad(zeros, 0.0)
        for place, part in zip(self.places(zeros.shape), parts, strict=True):
            padded[..., *place].add_(part)
        top, left = self.padding
        return F.pad(padded, (-left, -left, -top, -top))

    def window(self, rows: range, axis: int) -> range | None:
        return input_rows(rows, self.steps[axis], self.spans[axis], self.padding[axis])


class MaxPool2d(_Pooling):
    """The largest value of each window, as torch.nn.MaxPool2d.

    y[n, c, i, j] = max over a, b of x[n, c, i stride + a dilation - padding, j ...], a < kh, b < kw; pixels
    outside the image do not count. The gradient goes to the largest pixel; if several are equal, to the first
    of them, row by row. NaN is larger than every number, and of several NaN the last counts. Both are as in
    torch.

    x: (N, C, H, W); y: (N, C, H', W') with H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1.
    Any floating dtype. stride is kernel_size by default. Backward keeps the number of the largest pixel of
    each window, one byte for windows of up to 256 pixels.

    Raises:
        DescriptionError: the padding is larger than half the kernel.
        GraphError: x does not have the axes N C H W, is smaller than the kernel, or is padded and smaller
            than the dilation.

    >>> MaxPool2d(kernel_size=2).steps
    (2, 2)
    """

    saves: ClassVar[tuple[str, ...]] = ("taken",)
    precision: ClassVar[Precision] = "follow"
    dilation: PositivePair = (1, 1)

    @property
    def spread(self) -> tuple[int, int]:
        return self.dilation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = self.places(x.shape)
        padded = self.pad(x, -math.inf)
        y = padded[..., *places[0]]
        taken = torch.zeros_like(y, dtype=torch.uint8 if len(places) <= 256 else torch.int32)
        for number, place in enumerate(places[1:], start=1):
            pixel = padded[..., *place]
            larger = (pixel > y) | pixel.isnan()
            y = pixel.where(larger, y)
            taken = taken.masked_fill(larger, number)
        return y, taken

    def backward(self, grad_y: Tensor, taken: Tensor, specs: Specs) -> Tensor:
        numbers = range(math.prod(self.kernel_size))
        parts = (grad_y.masked_fill(taken != number, 0) for number in numbers)
        return self.fold(parts, grad_y.new_zeros(specs["x"].shape))


class AvgPool2d(_Pooling):
    """The mean of each window, as torch.nn.AvgPool2d.

    y[n, c, i, j] = sum over a, b of x[n, c, i stride + a - padding, j ...] / K, a < kh, b < kw, with zeros
    outside the image. Without count_include_pad the sum is divided by the number of the window's pixels in
    the image, in place of K. A pixel's gradient is the sum of the gradients of its windows, each divided by
    the same number.

    x: (N, C, H, W), float; y: (N, C, H', W') with H' = floor((H + 2 padding - kh) / stride) + 1. stride is
    kernel_size by default. Backward keeps no tensor.

    Raises:
        DescriptionError: the padding is larger than half the kernel.
        GraphError: x does not have the axes N C H W, or is smaller than the kernel.

    >>> AvgPool2d(kernel_size=2).forward(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[2.5000]]]])
    """

    count_include_pad: bool = True

    def forward(self, x: Tensor) -> Tensor:
        padded = self.pad(x, 0.0)
        first, *others = self.places(x.shape)
        total: Tensor = padded[..., *first]
        for place in others:
            total = total + padded[..., *place]
        return total / self.count(x.shape, x.device)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        shape = specs["x"].shape
        share = grad_y / self.count(shape, grad_y.device)
        return self.fold([share] * math.prod(self.kernel_size), grad_y.new_zeros(shape))

    def count(self, x: tuple[int, ...], device: torch.device) -> Tensor | int:
        """Return the divisor of the sums: K, or the number of each window's pixels in the image, (H', W')."""
        if self.count_include_pad:
            return math.prod(self.kernel_size)
        high, wide = (
            (first + length).clamp_max(n) - first.clamp_min(0)
            for n, count, length, step, pad in zip(
                x[2:], self.size(x), self.kernel_size, self.steps, self.padding, strict=True
            )
            for first in [torch.arange(count, device=device) * step - pad]
        )
        return high[:, None] * wide


class GlobalAvgPool(Layer):
    """The mean of each channel over its pixels, as torch.nn.AdaptiveAvgPool2d(1).

    y[n, c] = sum over i, j of x[n, c, i, j] / (H W); every pixel's gradient is grad_y / (H W).
    x: (N, C, H, W), float; y: (N, C, 1, 1). Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise GraphError(f"expected an input N x C x H x W, got {tuple(x.shape)}")
        return x.mean((2, 3), keepdim=True)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        shape = specs["x"].shape
        share: Tensor = grad_y / (shape[2] * shape[3])
        return share.expand(shape)
