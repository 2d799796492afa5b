"""Pooling: the largest value or the mean of each window, and the mean of a whole image.

Axes: N batch, C channels, S the spatial axes (L; H, W; or D, H, W), S' those of the output, K the product
of the kernel's sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.layers.windows import Windows
from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import (
    Layer,
    NonNegativeSizes,
    PositiveSizes,
    Precision,
    Spatial,
    Specs,
    by,
)


class Pooling(Spatial):
    """The base of both poolings: the positions of the windows."""

    kernel_size: PositiveSizes
    stride: PositiveSizes | None = None
    padding: NonNegativeSizes = (0,)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        if any(2 * pad > k for pad, k in zip(self.padding, self.kernel_size, strict=True)):
            message = (
                f"expected at most half of kernel_size {self.kernel_size}, found {self.padding}"
            )
            raise DescriptionError([Problem(message, "padding")])

    @property
    def steps(self) -> tuple[int, ...]:
        """The distance between two windows: the stride, by default the kernel size."""
        return self.stride or self.kernel_size

    @property
    def spread(self) -> tuple[int, ...]:
        """The dilation: the distance between two pixels of a window."""
        return (1,) * self.axes

    @property
    def windows(self) -> Windows:
        """The positions of the windows in the padded image."""
        return Windows(self.kernel_size, self.steps, self.spread)

    def size(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output's sizes. Raises GraphError if x has other axes, or is too small."""
        sizes = self.sizes(x)
        sides = self._sides(sizes)[::-1]
        padded = (n + sides[2 * i] + sides[2 * i + 1] for i, n in enumerate(sizes))
        counts = self.windows.counts(tuple(padded))
        if any(d > n for n, d, pad in zip(sizes, self.spread, self.padding, strict=True) if pad):
            raise GraphError(
                f"dilation {self.spread} is larger than the image of {by(sizes)}: all pixels of a "
                f"window could lie in the padding. Choose a smaller dilation, or no padding."
            )
        return counts

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Add a border of one value to the image x; with ceil_mode it reaches as far as the last window."""
        return F.pad(x, self._sides(tuple(x.shape[2:])), value=value)

    def fold(self, parts: Iterable[Tensor], zeros: Tensor) -> Tensor:
        """Add each part to the pixels of its place in all windows, in an image of zeros."""
        padded = self.windows.add(parts, self.pad(zeros, 0.0))
        return F.pad(padded, [-side for side in self._sides(tuple(zeros.shape[2:]))])

    def window(self, rows: range, axis: int) -> range | None:
        read, pad = self.windows.rows(rows, axis), self.padding[axis]
        return range(read.start - pad, read.stop - pad)

    def _sides(self, sizes: tuple[int, ...]) -> list[int]:
        """The padding before and after each axis, as torch orders it: the last axis first."""
        found = []
        spans = self.windows.spans
        for n, span, step, pad in zip(sizes, spans, self.steps, self.padding, strict=True):
            rest = max(0, n + 2 * pad - span) % step
            extra = step - rest if self.ceil_mode and rest else 0
            inside = n + 2 * pad + extra - span < n + pad  # the last window starts before the end
            found.append((pad, pad + extra if inside else pad))
        return [side for sides in reversed(found) for side in sides]


class MaxPooling(Pooling):
    """The largest value of each window, over any number of axes.

    y[n, c, i] = max over a of x[n, c, i stride + a dilation - padding], 0 <= a < kernel on each axis; pixels
    outside the image do not count. The gradient goes to the largest pixel; if several are equal, to the first
    of them, row by row. NaN is larger than every number, and of several NaN the last counts. Both are as in
    torch.

    x: (N, C, *S); y: (N, C, *S') with S' = floor((S + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 on
    each axis; with ceil_mode it is rounded up, but a window that starts after the end of the image is left
    out. Any floating dtype. stride is kernel_size by default. Backward keeps the number of the largest pixel
    of each window, one byte for windows of up to 256 pixels.

    Raises:
        DescriptionError: the padding is larger than half the kernel.
        GraphError: x has another number of axes, is smaller than the kernel, or is padded and smaller than
            the dilation.
    """

    saves: ClassVar[tuple[str, ...]] = ("taken",)
    precision: ClassVar[Precision] = "follow"
    dilation: PositiveSizes = (1,)

    @property
    def spread(self) -> tuple[int, ...]:
        return self.dilation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.size(x.shape)
        padded = self.pad(x, -math.inf)
        places = self.windows.places(padded.shape[2:])
        y = padded[places[0]]
        taken = torch.zeros_like(y, dtype=torch.uint8 if len(places) <= 256 else torch.int32)
        for number, place in enumerate(places[1:], start=1):
            pixel = padded[place]
            larger = (pixel > y) | pixel.isnan()
            y = pixel.where(larger, y)
            taken = taken.masked_fill(larger, number)
        return y, taken

    def backward(self, grad_y: Tensor, taken: Tensor, specs: Specs) -> Tensor:
        numbers = range(math.prod(self.kernel_size))
        parts = (grad_y.masked_fill(taken != number, 0) for number in numbers)
        return self.fold(parts, grad_y.new_zeros(specs["x"].shape))


class AvgPooling(Pooling):
    """The mean of each window, over any number of axes.

    y[n, c, i] = sum over a of x[n, c, i stride + a - padding] / K, 0 <= a < kernel on each axis, with zeros
    outside the image. Without count_include_pad the sum is divided by the number of the window's pixels in
    the image, in place of K. A pixel's gradient is the sum of the gradients of its windows, each divided by
    the same number.

    x: (N, C, *S), float; y: (N, C, *S') with S' = floor((S + 2 padding - kernel) / stride) + 1 on each axis;
    with ceil_mode it is rounded up, but a window that starts after the end of the image is left out, and
    pixels beyond the padding do not count in K. stride is kernel_size by default. Backward keeps no tensor.

    Raises:
        DescriptionError: the padding is larger than half the kernel.
        GraphError: x has another number of axes, or is smaller than the kernel.
    """

    count_include_pad: bool = True

    def forward(self, x: Tensor) -> Tensor:
        self.size(x.shape)
        padded = self.pad(x, 0.0)
        first, *others = self.windows.places(padded.shape[2:])
        total: Tensor = padded[first]
        for place in others:
            total = total + padded[place]
        return total / self.count(x.shape, x.device)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        shape = specs["x"].shape
        share = grad_y / self.count(shape, grad_y.device)
        return self.fold([share] * math.prod(self.kernel_size), grad_y.new_zeros(shape))

    def count(self, x: tuple[int, ...], device: torch.device) -> Tensor | int:
        """Return the divisor of the sums: K, or the number of pixels that count in each window, (*S')."""
        if self.count_include_pad and not self.ceil_mode:
            return math.prod(self.kernel_size)
        found: Tensor | None = None
        for axis, (n, count) in enumerate(zip(x[2:], self.size(x), strict=True)):
            pad = self.padding[axis]
            first = torch.arange(count, device=device) * self.steps[axis] - pad
            least, most = (-pad, n + pad) if self.count_include_pad else (0, n)
            inside = (first + self.kernel_size[axis]).clamp_max(most) - first.clamp_min(least)
            found = inside if found is None else found[..., None] * inside
        assert found is not None
        return found


class MaxPool1d(MaxPooling, axes=1):
    """The largest value of each window, as torch.nn.MaxPool1d.

    See `MaxPooling` for its equation, fields and errors. x: (N, C, L); y: (N, C, L').

    >>> MaxPool1d(kernel_size=2).forward(torch.tensor([[[1.0, 3.0, 2.0, 5.0]]]))[0]
    tensor([[[3., 5.]]])
    """


class MaxPool2d(MaxPooling, axes=2):
    """The largest value of each window, as torch.nn.MaxPool2d.

    See `MaxPooling` for its equation, fields and errors. x: (N, C, H, W); y: (N, C, H', W').

    >>> MaxPool2d(kernel_size=2).steps
    (2, 2)
    """


class MaxPool3d(MaxPooling, axes=3):
    """The largest value of each window, as torch.nn.MaxPool3d.

    See `MaxPooling` for its equation, fields and errors. x: (N, C, D, H, W); y: (N, C, D', H', W').

    >>> MaxPool3d(kernel_size=(1, 2, 2)).steps
    (1, 2, 2)
    """


class AvgPool1d(AvgPooling, axes=1):
    """The mean of each window, as torch.nn.AvgPool1d.

    See `AvgPooling` for its equation, fields and errors. x: (N, C, L); y: (N, C, L').

    >>> AvgPool1d(kernel_size=2).forward(torch.tensor([[[1.0, 3.0, 2.0, 5.0]]]))
    tensor([[[2.0000, 3.5000]]])
    """


class AvgPool2d(AvgPooling, axes=2):
    """The mean of each window, as torch.nn.AvgPool2d.

    See `AvgPooling` for its equation, fields and errors. x: (N, C, H, W); y: (N, C, H', W').

    >>> AvgPool2d(kernel_size=2).forward(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[2.5000]]]])
    """


class AvgPool3d(AvgPooling, axes=3):
    """The mean of each window, as torch.nn.AvgPool3d.

    See `AvgPooling` for its equation, fields and errors. x: (N, C, D, H, W); y: (N, C, D', H', W').

    >>> AvgPool3d(kernel_size=2).size((1, 1, 6, 4, 5))
    (3, 2, 2)
    """


class GlobalAvgPool(Layer):
    """The mean of each channel over its pixels, as torch.nn.AdaptiveAvgPool2d(1), over any number of axes.

    y[n, c] = sum over the pixels p of x[n, c, p] / P, P their number; every pixel's gradient is grad_y / P.
    x: (N, C, *S), float, with at least one spatial axis; y: (N, C, 1, ...). Backward keeps no tensor.

    Raises:
        GraphError: x has no spatial axes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            raise GraphError(
                f"expected an input N x C x ... with spatial axes, got {tuple(x.shape)}"
            )
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        shape = specs["x"].shape
        share: Tensor = grad_y / math.prod(shape[2:])
        return share.expand(shape)
