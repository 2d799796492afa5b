"""Padding: a border of reflected or of replicated pixels around an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import ContractError, GraphError
from graphnet.sdk import Layer, Precision, Sides


class _Padding(Layer):
    """The base of both paddings: a border is added to the height, then to the width."""

    precision: ClassVar[Precision] = "follow"
    padding: Sides

    def extend(self, x: Tensor, axis: int, before: int, after: int) -> Tensor:
        """Add a border of `before` and `after` pixels to an axis of the image."""
        raise ContractError(f"{type(self).__name__} defines no extend(x, axis, before, after)")

    def fold(self, g: Tensor, axis: int, before: int, after: int) -> Tensor:
        """Add the border of g to the pixels that the border repeats: the transpose of extend."""
        raise ContractError(f"{type(self).__name__} defines no fold(g, axis, before, after)")

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        if x.ndim != 4:
            raise GraphError(f"expected an input N x C x H x W, got {tuple(x.shape)}")
        return self.extend(self.extend(x, 2, top, bottom), 3, left, right)

    def backward(self, grad_y: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        return self.fold(self.fold(grad_y, 3, left, right), 2, top, bottom)


class ReflectionPad2d(_Padding):
    """Adds a border that mirrors the image without repeating its edge, as torch.nn.ReflectionPad2d.

    On each axis of n pixels, with j = i - before: y[i] = x[j] inside the image, x[-j] before it, and
    x[2 (n - 1) - j] after it. The gradient of a border pixel is added to that of the pixel that it repeats.

    x: (N, C, H, W); y: (N, C, H + top + bottom, W + left + right), any dtype; padding is one number, or
    [left, right, top, bottom], in pixels. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W, or the border is not smaller than the image.

    >>> ReflectionPad2d(padding=(0, 0, 2, 0)).forward(torch.tensor([[[[1.0], [2.0], [3.0]]]])).flatten()
    tensor([3., 2., 1., 2., 3.])
    """

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        if x.ndim == 4 and (max(top, bottom) >= x.shape[2] or max(left, right) >= x.shape[3]):
            raise GraphError(
                f"expected a padding smaller than the image of {x.shape[2]}x{x.shape[3]}, which it "
                f"mirrors, got {list(self.padding)} (left, right, top, bottom)"
            )
        return super().forward(x)

    def extend(self, x: Tensor, axis: int, before: int, after: int) -> Tensor:
        near = x.narrow(axis, 1, before).flip(axis)
        far = x.narrow(axis, x.shape[axis] - 1 - after, after).flip(axis)
        return torch.cat((near, x, far), axis)

    def fold(self, g: Tensor, axis: int, before: int, after: int) -> Tensor:
        size = g.shape[axis] - before - after
        image = g.narrow(axis, before, size).clone()
        image.narrow(axis, 1, before).add_(g.narrow(axis, 0, before).flip(axis))
        far = g.narrow(axis, before + size, after).flip(axis)
        image.narrow(axis, size - 1 - after, after).add_(far)
        return image

    def window(self, rows: range, axis: int) -> range | None:
        # A border pixel d rows outside the image repeats a pixel d rows inside it: 2 d rows away.
        before, after = self.padding[2:] if axis == 0 else self.padding[:2]
        return range(rows.start - before - 2 * after, rows.stop + before)


class ReplicationPad2d(_Padding):
    """Adds a border that repeats the outermost pixels, as torch.nn.ReplicationPad2d.

    On each axis of n pixels, y[i] = x[min(max(i - before, 0), n - 1)]. The gradient of the border is added to
    that of the outermost pixels.

    x: (N, C, H, W); y: (N, C, H + top + bottom, W + left + right), any dtype; padding is one number, or
    [left, right, top, bottom], in pixels. Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N C H W.

    >>> ReplicationPad2d(padding=(0, 0, 2, 0)).forward(torch.tensor([[[[1.0], [2.0]]]])).flatten()
    tensor([1., 1., 1., 2.])
    """

    def extend(self, x: Tensor, axis: int, before: int, after: int) -> Tensor:
        last = x.shape[axis] - 1
        near = x.narrow(axis, 0, 1).expand(*_resized(x, axis, before))
        far = x.narrow(axis, last, 1).expand(*_resized(x, axis, after))
        return torch.cat((near, x, far), axis)

    def fold(self, g: Tensor, axis: int, before: int, after: int) -> Tensor:
        size = g.shape[axis] - before - after
        image = g.narrow(axis, before, size).clone()
        image.narrow(axis, 0, 1).add_(g.narrow(axis, 0, before).sum(axis, keepdim=True))
        far = g.narrow(axis, before + size, after).sum(axis, keepdim=True)
        image.narrow(axis, size - 1, 1).add_(far)
        return image

    def window(self, rows: range, axis: int) -> range | None:
        # A border pixel d rows outside the image repeats a pixel d rows away.
        before, after = self.padding[2:] if axis == 0 else self.padding[:2]
        return range(rows.start - before - after, rows.stop)


def _resized(x: Tensor, axis: int, size: int) -> tuple[int, ...]:
    """Return the shape of x with another size on one axis."""
    return (*x.shape[:axis], size, *x.shape[axis + 1 :])
