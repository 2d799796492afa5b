"""Upsampling without parameters, over one, two or three axes: each pixel repeated, or interpolated."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Factors, PositiveSizes, Spatial, Specs, by


class NearestInterpolation(Spatial):
    """Repeats each pixel in a block, as torch.nn.Upsample: y[n, c, i, j] = x[n, c, i // fh, j // fw].

    x: (N, C, *S); y: (N, C, *S') with S' = S f for the integer f in `scale_factor` of each axis. The
    gradient of a pixel is the sum of the gradients of its block. Backward keeps no tensor.

    Raises:
        GraphError: x has another number of axes.
    """

    scale_factor: PositiveSizes

    def window(self, rows: range, axis: int) -> range:
        factor = self.scale_factor[axis]
        return range(rows.start // factor, (rows.stop - 1) // factor + 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, *sizes = x.shape
        pairs = list(zip(self.sizes(x.shape), self.scale_factor, strict=True))
        spaced = x.reshape(n, c, *(side for size in sizes for side in (size, 1)))
        blocks = spaced.expand(n, c, *(side for pair in pairs for side in pair))
        return blocks.reshape(n, c, *(size * factor for size, factor in pairs))

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        n, c, *sizes = specs["x"].shape
        pairs = zip(sizes, self.scale_factor, strict=True)
        blocks = grad_y.reshape(n, c, *(side for pair in pairs for side in pair))
        return blocks.sum(tuple(range(3, blocks.ndim, 2)))


class LinearInterpolation(Spatial):
    """Interpolates each pixel from its neighbours, two along each axis.

    Linear interpolation along one axis after the other. On an axis of n input pixels and
    m = floor(n scale_factor) output pixels, y[i] has the position
        s = (i + 1/2) / scale_factor - 1/2, or with align_corners  s = i (n - 1) / (m - 1),
    and the value (1 - s + l) x[l] + (s - l) x[l + 1] with l = floor(s), where both indices are clamped to the
    image. If m = n, the axis does not change, as in torch on a CPU.
    So y is a product with one matrix for each axis; a row of it has only two weights, and forward uses only
    these two. The gradient is the product with the transposed full matrices, so a NaN of g spreads over its
    rows and columns.

    x: (N, C, *S), float; y: (N, C, *S') with S' = floor(S f) for the positive number f in `scale_factor` of
    each axis. Without align_corners, the distance between output pixels is 1 / scale_factor input pixels,
    as in torch with recompute_scale_factor=False. A factor below 1 skips pixels. Backward keeps no tensor.

    Raises:
        GraphError: x has another number of axes, or the output would be empty.
    """

    scale_factor: Factors
    align_corners: bool = False

    def size(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output's sizes."""
        sizes = self.sizes(x)
        found = tuple(math.floor(n * f) for n, f in zip(sizes, self.scale_factor, strict=True))
        if not all(found):
            raise GraphError(
                f"scale_factor {self.scale_factor} leaves nothing of an image of {by(sizes)}"
            )
        return found

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
        sizes = zip(x.shape[2:], self.size(x.shape), strict=True)
        for axis, (n, m) in enumerate(sizes):
            before, after, share = self.neighbours(axis, n, m, x.device)
            far = share.to(x.dtype).view(-1, *(1,) * (self.axes - 1 - axis))
            x = x.index_select(2 + axis, before) * (1 - far) + x.index_select(2 + axis, after) * far
        return x

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        sizes = zip(specs["x"].shape[2:], grad_y.shape[2:], strict=True)
        for axis, (n, m) in enumerate(sizes):
            across = grad_y.movedim(2 + axis, -1) @ self.matrix(axis, n, m, grad_y)
            grad_y = across.movedim(-1, 2 + axis)
        return grad_y

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


class NearestUpsampling1d(NearestInterpolation, axes=1):
    """Repeats each value, as torch.nn.Upsample: y[n, c, i] = x[n, c, i // f].

    x: (N, C, L); y: (N, C, L f) for the integer `scale_factor` f.

    >>> NearestUpsampling1d(scale_factor=2).forward(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 2., 2.]]])
    """


class NearestUpsampling(NearestInterpolation, axes=2):
    """Repeats each pixel in a block, as torch.nn.Upsample: y[n, c, i, j] = x[n, c, i // fh, j // fw].

    x: (N, C, H, W); y: (N, C, H fh, W fw) for `scale_factor` (fh, fw), integers.

    >>> NearestUpsampling(scale_factor=(1, 2)).forward(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.]]]])
    """


class NearestUpsampling3d(NearestInterpolation, axes=3):
    """Repeats each pixel of a volume in a block, as torch.nn.Upsample.

    x: (N, C, D, H, W); y: (N, C, D fd, H fh, W fw) for `scale_factor` (fd, fh, fw), integers.

    >>> NearestUpsampling3d(scale_factor=(2, 1, 1)).forward(torch.tensor([[[[[1.0]]]]])).flatten()
    tensor([1., 1.])
    """


class LinearUpsampling(LinearInterpolation, axes=1):
    """Interpolates each value from its two neighbours, as torch.nn.Upsample(mode="linear").

    See `LinearInterpolation` for its equation and errors. x: (N, C, L); y: (N, C, floor(L f)).

    >>> LinearUpsampling(scale_factor=2).forward(torch.tensor([[[0.0, 1.0]]]))
    tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """


class BilinearUpsampling(LinearInterpolation, axes=2):
    """Interpolates each pixel from its four neighbours, as torch.nn.Upsample(mode="bilinear").

    See `LinearInterpolation` for its equation and errors. x: (N, C, H, W); y: (N, C, floor(H fh), floor(W
    fw)).

    >>> x = torch.tensor([[[[0.0, 1.0]]]])
    >>> BilinearUpsampling(scale_factor=(1, 2)).forward(x).flatten()
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """


class TrilinearUpsampling(LinearInterpolation, axes=3):
    """Interpolates each pixel of a volume from its eight neighbours, as torch.nn.Upsample(mode="trilinear").

    See `LinearInterpolation` for its equation and errors. x: (N, C, D, H, W); y: (N, C, D', H', W').

    >>> x = torch.tensor([[[[[0.0, 1.0]]]]])
    >>> TrilinearUpsampling(scale_factor=(1, 1, 2)).forward(x).flatten()
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
