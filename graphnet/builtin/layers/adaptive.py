"""Adaptive pooling: as many windows as the output has pixels, over one, two or three axes.

On an axis of n pixels and m output pixels, window i has the pixels from floor(i n / m) to ceil((i + 1) n /
m), without the last. A box of pixels is pooled along one axis after the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import OptionalSizes, Precision, Spatial, Specs, by


@dataclass(frozen=True, slots=True)
class _Axis:
    """The windows along one axis of n pixels: their first pixels and lengths, int64 (m,)."""

    axis: int
    n: int
    starts: Tensor
    lengths: Tensor
    longest: int

    @classmethod
    def of(cls, axis: int, n: int, m: int, device: torch.device) -> _Axis:
        i = torch.arange(m, device=device)
        starts = i * n // m
        ends = ((i + 1) * n + m - 1) // m
        longest = max(-(-(j + 1) * n // m) - j * n // m for j in range(m))
        return cls(axis, n, starts, ends - starts, longest)

    def pixel(self, x: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """The pixel with this number in all windows, and where a window has none: a mask (m, 1, ...)."""
        place = (self.starts + number).clamp_max(self.n - 1)
        missing = (self.lengths <= number).view(-1, *(1,) * (x.ndim - 1 - self.axis))
        return x.index_select(self.axis, place), missing

    def spread(self, g: Tensor, number: int | None = None) -> Tensor:
        """Add g (..., m, ...) to the pixels (..., n, ...) of its windows, or to the one with a number."""
        pixels = torch.arange(self.n, device=g.device) - self.starts[:, None]
        hit = (
            (pixels >= 0) & (pixels < self.lengths[:, None]) if number is None else pixels == number
        )
        return (g.movedim(self.axis, -1) @ hit.to(g.dtype)).movedim(-1, self.axis)

    def per_window(self, x: Tensor) -> Tensor:
        """The lengths, (m, 1, ...), so that they broadcast along this axis of x."""
        return self.lengths.view(-1, *(1,) * (x.ndim - 1 - self.axis))


class AdaptivePooling(Spatial):
    """The base of both adaptive poolings: the output's sizes, null for the size of the input."""

    output_size: OptionalSizes

    def pooled(self, shape: tuple[int, ...], device: torch.device) -> list[_Axis]:
        """The windows along each axis, the last axis first. Raises GraphError for axes without pixels."""
        sizes = self.sizes(shape)
        if not all(sizes):
            raise GraphError(f"expected an image with pixels, got {by(sizes)}")
        axes = zip(sizes, self.output_size, strict=True)
        found = [_Axis.of(2 + i, n, m or n, device) for i, (n, m) in enumerate(axes)]
        return found[::-1]


class AdaptiveAvgPooling(AdaptivePooling):
    """The mean of each of as many windows as the output has pixels, over any number of axes.

    With window i of an axis from s(i) = floor(i n / m) to e(i) = ceil((i + 1) n / m):
        y[i] = sum over s(i) <= j < e(i) of x[j] / (e(i) - s(i)), along one axis after the other.
    A pixel's gradient is the sum of the gradients of its windows, each divided by the same number, computed
    as a product with a matrix for each axis, so a NaN of g spreads along its axes.

    x: (N, C, *S), float; y: (N, C, *output_size), null for the size of the input. Backward keeps no tensor.

    Raises:
        GraphError: x has another number of axes, or an axis without pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        for windows in self.pooled(tuple(x.shape), x.device):
            total, _ = windows.pixel(x, 0)
            for number in range(1, windows.longest):
                pixel, missing = windows.pixel(x, number)
                total = total + pixel.masked_fill(missing, 0)
            x = total / windows.per_window(total)
        return x

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        for windows in reversed(self.pooled(specs["x"].shape, grad_y.device)):
            grad_y = windows.spread(grad_y / windows.per_window(grad_y))
        return grad_y


class AdaptiveMaxPooling(AdaptivePooling):
    """The largest value of each of as many windows as the output has pixels, over any number of axes.

    With window i of an axis from s(i) = floor(i n / m) to e(i) = ceil((i + 1) n / m):
        y[i] = max over s(i) <= j < e(i) of x[j], along the last axis, then along the one before it.
    The gradient goes to the largest pixel; if several are equal, to the first of them, row by row. NaN is
    larger than every number, and of several NaN the last counts, as in torch. A NaN of g spreads along its
    axes.

    x: (N, C, *S), any floating dtype; y: (N, C, *output_size), null for the size of the input. Backward keeps
    the number of the largest pixel of each window, axis by axis: (N, all of them).

    Raises:
        GraphError: x has another number of axes, or an axis without pixels.
    """

    saves: ClassVar[tuple[str, ...]] = ("taken",)
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, axes = x.shape[0], self.pooled(tuple(x.shape), x.device)
        dtype = torch.uint8 if max(windows.longest for windows in axes) <= 256 else torch.int32
        kept = []
        for windows in axes:
            y, _ = windows.pixel(x, 0)
            taken = torch.zeros_like(y, dtype=dtype, memory_format=torch.contiguous_format)
            for number in range(1, windows.longest):
                pixel, missing = windows.pixel(x, number)
                larger = ((pixel > y) | pixel.isnan()) & ~missing
                y = pixel.where(larger, y)
                taken = taken.masked_fill(larger, number)
            kept.append(taken.reshape(n, math.prod(taken.shape[1:])))
            x = y
        return x, torch.cat(kept, 1)

    def backward(self, grad_y: Tensor, taken: Tensor, specs: Specs) -> Tensor:
        shape = [*specs["x"].shape]
        axes = self.pooled(specs["x"].shape, grad_y.device)
        shapes = []
        for windows in axes:  # along the last axis first, as forward goes
            shape[windows.axis] = windows.lengths.shape[0]
            shapes.append(tuple(shape))
        parts = torch.split(taken, [math.prod(s[1:]) for s in shapes], 1)
        for windows, part, there in reversed(list(zip(axes, parts, shapes, strict=True))):
            numbers = part.reshape(there)
            picked = [
                windows.spread(grad_y.masked_fill(numbers != number, 0), number)
                for number in range(windows.longest)
            ]
            grad_y = torch.stack(picked).sum(0)
        return grad_y


class AdaptiveAvgPool1d(AdaptiveAvgPooling, axes=1):
    """The mean of each of output_size windows, as torch.nn.AdaptiveAvgPool1d.

    See `AdaptiveAvgPooling` for its equation and errors. x: (N, C, L); y: (N, C, output_size).

    >>> AdaptiveAvgPool1d(output_size=2).forward(torch.tensor([[[1.0, 3.0, 5.0]]]))
    tensor([[[2., 4.]]])
    """


class AdaptiveAvgPool2d(AdaptiveAvgPooling, axes=2):
    """The mean of each of output_size windows, as torch.nn.AdaptiveAvgPool2d.

    See `AdaptiveAvgPooling` for its equation and errors. x: (N, C, H, W); y: (N, C, *output_size).
    """


class AdaptiveAvgPool3d(AdaptiveAvgPooling, axes=3):
    """The mean of each of output_size windows, as torch.nn.AdaptiveAvgPool3d.

    See `AdaptiveAvgPooling` for its equation and errors. x: (N, C, D, H, W); y: (N, C, *output_size).
    """


class AdaptiveMaxPool1d(AdaptiveMaxPooling, axes=1):
    """The largest value of each of output_size windows, as torch.nn.AdaptiveMaxPool1d.

    See `AdaptiveMaxPooling` for its equation and errors. x: (N, C, L); y: (N, C, output_size).

    >>> AdaptiveMaxPool1d(output_size=2).forward(torch.tensor([[[1.0, 3.0, 5.0]]]))[0]
    tensor([[[3., 5.]]])
    """


class AdaptiveMaxPool2d(AdaptiveMaxPooling, axes=2):
    """The largest value of each of output_size windows, as torch.nn.AdaptiveMaxPool2d.

    See `AdaptiveMaxPooling` for its equation and errors. x: (N, C, H, W); y: (N, C, *output_size).
    """


class AdaptiveMaxPool3d(AdaptiveMaxPooling, axes=3):
    """The largest value of each of output_size windows, as torch.nn.AdaptiveMaxPool3d.

    See `AdaptiveMaxPooling` for its equation and errors. x: (N, C, D, H, W); y: (N, C, *output_size).
    """
