"""The layer with which zero-shot training makes two half-sized images of one."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision


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
