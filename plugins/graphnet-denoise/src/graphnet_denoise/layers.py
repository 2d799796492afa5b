"""Layers around a network: the halves of an image for zero-shot training, and the border for any size."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from graphnet.errors import GraphError
from graphnet.model import pad_to_multiple
from graphnet.sdk import Layer, Precision, Specs


class DiagonalMeans(Layer):
    """Two half-sized images: the means of both diagonals of each cell of 2 x 2 (Mansour & Heckel 2023).

    With the pixels a b / c d of a cell: first = (b + c) / 2, second = (a + d) / 2, the convolutions with
    stride 2 and the kernels [[0, 1/2], [1/2, 0]] and [[1/2, 0], [0, 1/2]], channel by channel.

    x: (N, C, 2H, 2W); first, second: (N, C, H, W). The gradient of a pixel is half that of its mean.
    Backward keeps no tensor. Raises GraphError for odd sides.
    """

    outputs: ClassVar[tuple[str, ...]] = ("first", "second")
    precision: ClassVar[Precision] = "follow"

    def window(self, rows: range, axis: int) -> range | None:
        return range(2 * rows.start, 2 * rows.stop)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise GraphError(f"expected N x C x H x W with even H and W, got {tuple(x.shape)}")
        upper, lower = x[:, :, ::2], x[:, :, 1::2]
        first = (upper[..., 1::2] + lower[..., ::2]) / 2
        second = (upper[..., ::2] + lower[..., 1::2]) / 2
        return first, second

    def backward(self, grad_first: Tensor, grad_second: Tensor) -> Tensor:
        n, c, h, w = grad_first.shape
        grad_x = grad_first.new_empty((n, c, h, 2, w, 2))
        for row in (0, 1):
            for column in (0, 1):
                half = grad_second if row == column else grad_first
                grad_x[:, :, :, row, :, column] = half / 2
        return grad_x.reshape(n, c, 2 * h, 2 * w)


class PadToMultiple(Layer):
    """Pad the height and width of images to the next multiples of `divisor`, by reflection.

    x: (N, C, H, W); y: (N, C, H', W'), with the new rows and columns after the old ones. The image is
    mirrored at its last row and column, which are not repeated, then at its first ones, as often as needed
    (graphnet.model.pad_to_multiple). The gradient of a pixel is the sum of those of its copies. Backward
    keeps no tensor. Raises GraphError if x has other axes.
    """

    divisor: PositiveInt
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise GraphError(f"expected N x C x H x W, got {tuple(x.shape)}")
        return pad_to_multiple(x, self.divisor).clone()

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        h, w = specs["x"].shape[2:]
        for axis, length in ((2, h), (3, w)):
            shown = pad_to_multiple(_numbers(length, grad_y), self.divisor)[0, :]
            summed = grad_y.new_zeros((*grad_y.shape[:axis], length, *grad_y.shape[axis + 1 :]))
            grad_y = summed.index_add(axis, shown, grad_y)
        return grad_y


class CropTo(Layer):
    """Cut images to the size of others: y = x[..., :H, :W].

    x: (N, C, H', W'), H' >= H, W' >= W; like: (N, C', H, W), which gets no gradient; y: (N, C, H, W).
    The gradient of the pixels that are cut off is 0. Backward keeps no tensor. Raises GraphError if x is
    smaller, or one of them has other axes.
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("like",)
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        if x.ndim != 4 or like.ndim != 4:
            raise GraphError(
                f"expected N x C x H x W twice, got {tuple(x.shape)}, {tuple(like.shape)}"
            )
        h, w = like.shape[2:]
        if x.shape[2] < h or x.shape[3] < w:
            raise GraphError(f"expected x of at least {h} x {w}, got {tuple(x.shape)}")
        return x[..., :h, :w]

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, None]:
        h, w = specs["x"].shape[2:]
        return functional.pad(grad_y, (0, w - grad_y.shape[3], 0, h - grad_y.shape[2])), None


def _numbers(length: int, like: Tensor) -> Tensor:
    """The numbers of the rows of an axis, as an image of one row: int64 (1, length)."""
    return torch.arange(length, device=like.device)[None]
