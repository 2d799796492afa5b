"""Windows: the positions of a kernel over any number of axes, unfold (im2col), and its transpose fold.

Axes: N batch, C channels, S the spatial axes, K the product of the kernel's sizes, L the number of positions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import by

Place = tuple[EllipsisType | slice, ...]
"""An index of an image (N, C, *S): the ellipsis, and a slice for each spatial axis."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The positions of a kernel in an image that is padded already: on each axis its size, step and gaps."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """The pixels from the first to the last under the kernel, on each axis."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))

    def counts(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The number of positions on each axis. Raises GraphError if the kernel does not fit."""
        spans = self.spans
        if any(n < span for n, span in zip(sizes, spans, strict=True)):
            raise GraphError(
                f"the kernel spans {by(spans)}, more than the padded input of {by(sizes)}"
            )
        steps = zip(sizes, spans, self.stride, strict=True)
        return tuple((n - span) // step + 1 for n, span, step in steps)

    def places(self, sizes: tuple[int, ...]) -> list[Place]:
        """Indices of the image: for each pixel of the kernel, that pixel in all positions."""
        axes = [
            [slice(i * gap, i * gap + (count - 1) * step + 1, step) for i in range(length)]
            for length, gap, step, count in zip(
                self.kernel_size, self.dilation, self.stride, self.counts(sizes), strict=True
            )
        ]
        return [(..., *slices) for slices in itertools.product(*axes)]

    def unfold(self, x: Tensor) -> Tensor:
        """Copy the pixels under each position of x (N, C, *S) into a column: (N, C * K, L)."""
        if len(self.kernel_size) == 2:  # the same by one operator of torch
            return F.unfold(x, self.kernel_size, self.dilation, 0, self.stride)
        pixels = [x[place] for place in self.places(x.shape[2:])]
        return torch.stack(pixels, 2).flatten(3).flatten(1, 2)

    def fold(self, columns: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Add columns (N, C * K, L) to an image (N, C, *sizes) of zeros: the transpose of unfold."""
        if len(self.kernel_size) == 2:
            return F.fold(columns, sizes, self.kernel_size, self.dilation, 0, self.stride)
        taps, counts = math.prod(self.kernel_size), self.counts(sizes)
        n, channels = columns.shape[0], columns.shape[1] // taps
        parts = columns.reshape(n, channels, taps, *counts).unbind(2)
        return self.add(parts, columns.new_zeros((n, channels, *sizes)))

    def add(self, parts: Iterable[Tensor], image: Tensor) -> Tensor:
        """Add each part (N, C, *counts) to its place in the image, in place."""
        for place, part in zip(self.places(image.shape[2:]), parts, strict=True):
            image[place].add_(part)
        return image

    def rows(self, rows: range, axis: int) -> range:
        """The rows of the padded image from which these rows of positions are read, on one axis."""
        first = rows.start * self.stride[axis]
        return range(first, first + (len(rows) - 1) * self.stride[axis] + self.spans[axis])
