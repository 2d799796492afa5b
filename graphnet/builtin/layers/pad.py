"""Padding: a border of one value, or of reflected, replicated or repeated pixels around an image."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.layers.borders import PaddingMode, add_border, border_rows, fold_border
from graphnet.sdk import Bound, NonNegativeSides, Precision, Spatial


class Padding(Spatial):
    """The base of all paddings: a border is added to each spatial axis, the first one first.

    The gradient of a border pixel is added to that of the pixel that it repeats. Backward keeps no tensor.
    `padding` is one number, or two for each axis, the last axis first: [left, right, top, bottom, front,
    back].
    """

    precision: ClassVar[Precision] = "follow"
    mode: ClassVar[PaddingMode]
    padding: NonNegativeSides

    def forward(self, x: Tensor) -> Tensor:
        self.sizes(x.shape)
        return add_border(x, self.padding, self.mode)

    def backward(self, grad_y: Tensor) -> Tensor:
        return fold_border(grad_y, self.padding, self.mode)

    def window(self, rows: range, axis: int) -> range | None:
        before, after = self.padding[2 * (self.axes - 1 - axis) :][:2]
        return border_rows(rows, before, after, self.mode)


class ConstantPad(Padding):
    """Adds a border of one value, by default of zeros, over any number of axes.

    x: (N, C, *S), any dtype; y: (N, C, S + before + after on each axis).

    Raises:
        GraphError: x has another number of axes.
    """

    mode: ClassVar[PaddingMode] = "zeros"
    value: Bound = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.sizes(x.shape)
        return F.pad(x, self.padding, value=self.value)


class ReflectionPad(Padding):
    """Adds a border that mirrors the image without repeating its edge, over any number of axes.

    On each axis of n pixels, with j = i - before: y[i] = x[j] inside the image, x[-j] before it, and
    x[2 (n - 1) - j] after it.

    x: (N, C, *S), any dtype; y: (N, C, S + before + after on each axis).

    Raises:
        GraphError: x has another number of axes, or the border is not smaller than the image.
    """

    mode: ClassVar[PaddingMode] = "reflect"


class ReplicationPad(Padding):
    """Adds a border that repeats the outermost pixels, over any number of axes.

    On each axis of n pixels, y[i] = x[min(max(i - before, 0), n - 1)].

    x: (N, C, *S), any dtype; y: (N, C, S + before + after on each axis).

    Raises:
        GraphError: x has another number of axes, or an axis without pixels.
    """

    mode: ClassVar[PaddingMode] = "replicate"


class CircularPad(Padding):
    """Adds a border that repeats the image's other end, over any number of axes.

    On each axis of n pixels, y[i] = x[(i - before) mod n].

    x: (N, C, *S), any dtype; y: (N, C, S + before + after on each axis).

    Raises:
        GraphError: x has another number of axes, or the border is larger than the image.
    """

    mode: ClassVar[PaddingMode] = "circular"


class ConstantPad1d(ConstantPad, axes=1):
    """Adds a border of one value, by default 0, as torch.nn.ConstantPad1d and ZeroPad1d.

    x: (N, C, L), any dtype; padding is one number, or [left, right]. See `ConstantPad`.

    >>> ConstantPad1d(padding=(2, 0)).forward(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[0., 0., 1., 2.]]])
    """


class ConstantPad2d(ConstantPad, axes=2):
    """Adds a border of one value, by default 0, as torch.nn.ConstantPad2d and ZeroPad2d.

    x: (N, C, H, W), any dtype; padding is one number, or [left, right, top, bottom]. See `ConstantPad`.
    """


class ConstantPad3d(ConstantPad, axes=3):
    """Adds a border of one value, by default 0, as torch.nn.ConstantPad3d and ZeroPad3d.

    x: (N, C, D, H, W), any dtype; padding is one number, or [left, right, top, bottom, front, back]. See
    `ConstantPad`.
    """


class ReflectionPad1d(ReflectionPad, axes=1):
    """Adds a border that mirrors the signal without repeating its edge, as torch.nn.ReflectionPad1d.

    x: (N, C, L), any dtype; padding is one number, or [left, right]. See `ReflectionPad`.

    >>> ReflectionPad1d(padding=(2, 0)).forward(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 2., 1., 2., 3.]]])
    """


class ReflectionPad2d(ReflectionPad, axes=2):
    """Adds a border that mirrors the image without repeating its edge, as torch.nn.ReflectionPad2d.

    x: (N, C, H, W); y: (N, C, H + top + bottom, W + left + right), any dtype; padding is one number, or
    [left, right, top, bottom], in pixels. See `ReflectionPad`.

    >>> ReflectionPad2d(padding=(0, 0, 2, 0)).forward(torch.tensor([[[[1.0], [2.0], [3.0]]]])).flatten()
    tensor([3., 2., 1., 2., 3.])
    """


class ReflectionPad3d(ReflectionPad, axes=3):
    """Adds a border that mirrors the volume without repeating its edge, as torch.nn.ReflectionPad3d.

    x: (N, C, D, H, W), any dtype; padding is one number, or [left, right, top, bottom, front, back]. See
    `ReflectionPad`.
    """


class ReplicationPad1d(ReplicationPad, axes=1):
    """Adds a border that repeats the outermost values, as torch.nn.ReplicationPad1d.

    x: (N, C, L), any dtype; padding is one number, or [left, right]. See `ReplicationPad`.

    >>> ReplicationPad1d(padding=(2, 0)).forward(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 1., 2.]]])
    """


class ReplicationPad2d(ReplicationPad, axes=2):
    """Adds a border that repeats the outermost pixels, as torch.nn.ReplicationPad2d.

    x: (N, C, H, W); y: (N, C, H + top + bottom, W + left + right), any dtype; padding is one number, or
    [left, right, top, bottom], in pixels. See `ReplicationPad`.

    >>> ReplicationPad2d(padding=(0, 0, 2, 0)).forward(torch.tensor([[[[1.0], [2.0]]]])).flatten()
    tensor([1., 1., 1., 2.])
    """


class ReplicationPad3d(ReplicationPad, axes=3):
    """Adds a border that repeats the outermost pixels, as torch.nn.ReplicationPad3d.

    x: (N, C, D, H, W), any dtype; padding is one number, or [left, right, top, bottom, front, back]. See
    `ReplicationPad`.
    """


class CircularPad1d(CircularPad, axes=1):
    """Adds a border that repeats the signal's other end, as torch.nn.CircularPad1d.

    x: (N, C, L), any dtype; padding is one number, or [left, right]. See `CircularPad`.

    >>> CircularPad1d(padding=(2, 0)).forward(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[2., 3., 1., 2., 3.]]])
    """


class CircularPad2d(CircularPad, axes=2):
    """Adds a border that repeats the image's other end, as torch.nn.CircularPad2d.

    x: (N, C, H, W), any dtype; padding is one number, or [left, right, top, bottom]. See `CircularPad`.
    """


class CircularPad3d(CircularPad, axes=3):
    """Adds a border that repeats the volume's other end, as torch.nn.CircularPad3d.

    x: (N, C, D, H, W), any dtype; padding is one number, or [left, right, top, bottom, front, back]. See
    `CircularPad`.
    """
