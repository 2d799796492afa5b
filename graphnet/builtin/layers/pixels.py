"""Pixel shuffle and unshuffle: move values between the channels and the pixels, without arithmetic."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision


class PixelShuffle(Layer):
    """Turns groups of r^2 channels into blocks of r x r pixels, as torch.nn.PixelShuffle.

    Shi et al. 2016, eq. 4, in torch's order of channels, with r = upscale_factor:
        y[n, c, h r + i, w r + j] = x[n, (c r + i) r + j, h, w],  i, j < r.
    The gradient of x is PixelUnshuffle of grad_y.
    x: (N, C r^2, H, W); y: (N, C, H r, W r). Any dtype. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W, or r^2 does not divide its channels.

    >>> PixelShuffle(upscale_factor=2).forward(torch.arange(4.0).reshape(1, 4, 1, 1))
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """

    precision: ClassVar[Precision] = "follow"
    upscale_factor: PositiveInt

    def forward(self, x: Tensor) -> Tensor:
        block = self.upscale_factor**2
        if x.ndim != 4 or x.shape[1] % block:
            raise GraphError(
                f"expected an input N x C x H x W with channels divisible by {block} (upscale_factor "
                f"{self.upscale_factor} squared), got {tuple(x.shape)}"
            )
        return shuffle(x, self.upscale_factor)

    def backward(self, grad_y: Tensor) -> Tensor:
        return unshuffle(grad_y, self.upscale_factor)

    def window(self, rows: range, axis: int) -> range | None:
        return range(rows.start // self.upscale_factor, (rows.stop - 1) // self.upscale_factor + 1)


class PixelUnshuffle(Layer):
    """Turns blocks of r x r pixels into r^2 channels, as torch.nn.PixelUnshuffle.

    With r = downscale_factor:  y[n, (c r + i) r + j, h, w] = x[n, c, h r + i, w r + j],  i, j < r.
    The gradient of x is PixelShuffle of grad_y.
    x: (N, C, H r, W r); y: (N, C r^2, H, W). Any dtype. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W, or r does not divide its height and width.
    """

    precision: ClassVar[Precision] = "follow"
    downscale_factor: PositiveInt

    def forward(self, x: Tensor) -> Tensor:
        r = self.downscale_factor
        if x.ndim != 4 or x.shape[2] % r or x.shape[3] % r:
            raise GraphError(
                f"expected an input N x C x H x W with height and width divisible by {r} "
                f"(downscale_factor), got {tuple(x.shape)}"
            )
        return unshuffle(x, r)

    def backward(self, grad_y: Tensor) -> Tensor:
        return shuffle(grad_y, self.downscale_factor)

    def window(self, rows: range, axis: int) -> range | None:
        return range(rows.start * self.downscale_factor, rows.stop * self.downscale_factor)


def shuffle(x: Tensor, r: int) -> Tensor:
    """Rearrange (N, C r^2, H, W) to (N, C, H r, W r)."""
    n, channels, h, w = x.shape
    c = channels // r**2
    moved = x.reshape(n, c, r, r, h, w).permute(0, 1, 4, 2, 5, 3)  # n c h i w j
    return moved.reshape(n, c, h * r, w * r)


def unshuffle(x: Tensor, r: int) -> Tensor:
    """Rearrange (N, C, H r, W r) to (N, C r^2, H, W)."""
    n, c, height, width = x.shape
    h, w = height // r, width // r
    moved = x.reshape(n, c, h, r, w, r).permute(0, 1, 3, 5, 2, 4)  # n c i j h w
    return moved.reshape(n, c * r**2, h, w)
