"""Upsampling without parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import FactorPair, Layer, PositivePair, Specs


class NearestUpsampling(Layer):
    """Repeats each pixel in a block: y[n, c, i, j] = x[n, c, i // fh, j // fw], as torch.nn.Upsample.

    x: (N, C, H, W); y: (N, C, H fh, W fw) for `scale_factor` (fh, fw), integers. The gradient of a pixel is
    the sum of the gradients of its block. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W.

    >>> NearestUpsampling(scale_factor=(1, 2)).forward(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.]]]])
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


class BilinearUpsampling(Layer):
    """Interpolates each pixel from its four neighbours, as torch.nn.Upsample(mode="bilinear").

    Linear interpolation along the height, then along the width. On an axis of n input pixels and
    m = floor(n scale_factor) output pixels, y[i] has the position
        s = (i + 1/2) / scale_factor - 1/2, or with align_corners  s = i (n - 1) / (m - 1),
    and the value (1 - s + l) x[l] + (s - l) x[l + 1] with l = floor(s), where both indices are clamped to the
    image. If m = n, the axis does not change, as in torch on a CPU.
    So y = R x C^T, with one matrix for each axis; a row of it has only two weights, and forward uses only
    these two. The gradient is R^T g C with full matrices, so a NaN of g spreads over its rows and columns.

    x: (N, C, H, W), float; y: (N, C, floor(H fh), floor(W fw)) for `scale_factor` (fh, fw), any positive
    numbers. Without align_corners, the distance between output pixels is 1 / scale_factor input pixels, as in
    torch with recompute_scale_factor=False. A factor below 1 skips pixels. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W, or the output would be empty.

    >>> x = torch.tensor([[[[0.0, 1.0]]]])
    >>> BilinearUpsampling(scale_factor=(1, 2)).forward(x).flatten()
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """

    scale_factor: FactorPair
    align_corners: bool = False

    def size(self, x: tuple[int, ...]) -> tuple[int, int]:
        """Return the output's height and width."""
        if len(x) != 4:
            raise GraphError(f"expected an input N x C x H x W, got {tuple(x)}")
        height, width = (math.floor(n * f) for n, f in zip(x[2:], self.scale_factor, strict=True))
        if not height or not width:
            raise GraphError(
                f"scale_factor {self.scale_factor} leaves nothing of an image of {x[2]}x{x[3]}"
            )
        return height, width

    def neighbours(
        self, axis: int, n: int, m: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the two neighbours of each of m output pixels, and the weight of the second.

        Returns:
            The indices of the pixels before and after, int64 (m,), and the weight, float64 (m,).
        """
        i = torch.arange(m, dtype=torch.float64, device=device)
        if m == n:
            s = i
        elif self.align_corners:
            s = i * ((n - 1) / max(m - 1, 1))
        else:
            s = (i + 0.5) * (1 / self.scale_factor[axis]) - 0.5
        before = s.floor()
        pixels = [p.clamp(0, n - 1).long() for p in (before, before + 1)]
        return pixels[0], pixels[1], s - before

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size(x.shape)
        top, bottom, low = self.neighbours(0, x.shape[2], height, x.device)
        left, right, far = self.neighbours(1, x.shape[3], width, x.device)
        low, far = low.to(x.dtype)[:, None], far.to(x.dtype)
        rows = x.index_select(2, top) * (1 - low) + x.index_select(2, bottom) * low
        return rows.index_select(3, left) * (1 - far) + rows.index_select(3, right) * far

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        rows, columns = (
            self.matrix(axis, n, m, grad_y)
            for axis, (n, m) in enumerate(zip(specs["x"].shape[2:], grad_y.shape[2:], strict=True))
        )
        return rows.t() @ grad_y @ columns

    def matrix(self, axis: int, n: int, m: int, like: Tensor) -> Tensor:
        """Return the matrix of one axis, (m, n)."""
        before, after, share = self.neighbours(axis, n, m, like.device)
        pixels = torch.arange(n, device=like.device)
        first, second = (p[:, None] == pixels for p in (before, after))
        return (first * (1 - share)[:, None] + second * share[:, None]).to(like.dtype)

    def window(self, rows: range, axis: int) -> range | None:
        if self.align_corners:
            return None  # the distance between pixels depends on the size of the image
        first, last = (
            math.floor((row + 0.5) * (1 / self.scale_factor[axis]) - 0.5)
            for row in (rows.start, rows.stop - 1)
        )
        return range(first, last + 2)
