"""Upsampling without parameters."""

from __future__ import annotations

from torch import Tensor

from graphnet.definition import PositivePair
from graphnet.errors import GraphError
from graphnet.layer import Layer, Specs


class NearestUpsampling(Layer):
    """Each pixel becomes a block: y[n, c, i, j] = x[n, c, i // fh, j // fw], as torch.nn.Upsample.

    x: (N, C, H, W); y: (N, C, H fh, W fw) for `scale_factor` (fh, fw), integers. The gradient of a
    pixel is the sum over its block. Backward keeps nothing.
    """

    scale_factor: PositivePair

    def window(self, rows: range, axis: int) -> range:
        factor = self.scale_factor[axis]
        return range(rows.start // factor, (rows.stop - 1) // factor + 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise GraphError(f"expected an input N x C x H x W, got {tuple(x.shape)}")
        n, c, h, w = x.shape
        fh, fw = self.scale_factor
        return x[:, :, :, None, :, None].expand(n, c, h, fh, w, fw).reshape(n, c, h * fh, w * fw)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        n, c, h, w = specs["x"].shape
        fh, fw = self.scale_factor
        return grad_y.reshape(n, c, h, fh, w, fw).sum((3, 5))
