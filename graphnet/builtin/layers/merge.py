"""Layers that combine several tensors into one: sums, concatenation, product, difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision, Specs


class Add(Layer):
    """The sum of any number of tensors of one shape.

    y = xs[0] + xs[1] + ...; each input's gradient is grad_y itself. Backward keeps no tensor.

    Raises:
        GraphError: the shapes differ.
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    overwrites: ClassVar[Mapping[str, str]] = {"y": "xs"}

    def forward(self, *xs: Tensor) -> Tensor:
        if len({x.shape for x in xs}) > 1:
            raise GraphError(f"expected inputs of one shape, got {', '.join(_shapes(*xs))}")
        total = xs[0]
        for x in xs[1:]:
            total = total + x
        return total

    def forward_(self, *xs: Tensor) -> Tensor:
        for x in xs[1:]:
            xs[0].add_(x)
        return xs[0]

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return (grad_y,) * len(specs["xs"])


class Concat(Layer):
    """Concatenates tensors along `dim`, by default the channels, as torch.cat.

    Each input's gradient is its part of grad_y, a view. Backward keeps no tensor.

    Raises:
        GraphError: the shapes differ on another axis than `dim`.
    """

    precision: ClassVar[Precision] = "follow"
    dim: int = 1

    def forward(self, *xs: Tensor) -> Tensor:
        others = {
            tuple(size for axis, size in enumerate(x.shape) if axis != self.dim % x.ndim)
            for x in xs
        }
        if len(others) > 1:
            raise GraphError(
                f"expected inputs that differ on axis {self.dim} only, got {', '.join(_shapes(*xs))}"
            )
        return torch.cat(xs, self.dim)

    def window(self, rows: range, axis: int) -> range | None:
        return rows if self.dim in (0, 1) else None

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return torch.split(grad_y, [spec.shape[self.dim] for spec in specs["xs"]], self.dim)


class BroadcastAdd(Layer):
    """x + other with broadcasting, as torch.add.

    Shapes are compared from the last axis on; where sizes differ, one of them is 1, and one of the tensors
    may lack the first axes. So the features of each position (T, D) can be added to a batch (N, T, D).
    With g the gradient of y: dx = dother = g, each summed over the axes along which that input was broadcast.
    x, other, y: any shape. Backward keeps no tensor. For tensors of one shape, `add` is faster.

    Raises:
        GraphError: the shapes cannot be broadcast to each other.

    >>> BroadcastAdd().forward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([10.0, 20.0]))
    tensor([[11., 22.],
            [13., 24.]])
    """

    precision: ClassVar[Precision] = "follow"

    def window(self, rows: range, axis: int) -> range | None:
        return rows

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        _check_broadcast(x, other)
        return x + other

    def backward(
        self, grad_y: Tensor, specs: Specs, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_x = grad_y.sum_to_size(specs["x"].shape) if "x" in wanted else None
        grad_other = grad_y.sum_to_size(specs["other"].shape) if "other" in wanted else None
        return grad_x, grad_other


class Multiply(Layer):
    """The product of two tensors with broadcasting, as torch.mul.

    Shapes are compared from the last axis on; where sizes differ, one of them is 1, and one of the tensors
    may lack the first axes. A gate of shape (N, C, 1, 1) scales each channel of an image, one of (N, 1, H, W)
    each pixel.
    With g the gradient of y: dx = g * other, dother = g * x, each summed over the axes along which that input
    was broadcast. x, other, y: any shape. Backward keeps both inputs.

    Raises:
        GraphError: the shapes cannot be broadcast to each other.

    >>> Multiply().forward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0], [100.0]]))
    tensor([[ 10.,  20.],
            [300., 400.]])
    """

    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("x", "other")

    def window(self, rows: range, axis: int) -> range | None:
        return rows

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        _check_broadcast(x, other)
        return x * other

    def backward(
        self, grad_y: Tensor, x: Tensor, other: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_x = (grad_y * other).sum_to_size(x.shape) if "x" in wanted else None
        grad_other = (grad_y * x).sum_to_size(other.shape) if "other" in wanted else None
        return grad_x, grad_other


class Subtract(Layer):
    """x - other with broadcasting, as torch.sub.

    Shapes are compared from the last axis on; where sizes differ, one of them is 1, and one of the tensors
    may lack the first axes. So the mean of each channel, (N, C, 1, 1), can be subtracted from all pixels of
    the channel.
    With g the gradient of y: dx = g, dother = -g, each summed over the axes along which that input was
    broadcast. x, other, y: any shape. Backward keeps no tensor.

    Raises:
        GraphError: the shapes cannot be broadcast to each other.

    >>> Subtract().forward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [3.0]]))
    tensor([[0., 1.],
            [0., 1.]])
    """

    precision: ClassVar[Precision] = "follow"

    def window(self, rows: range, axis: int) -> range | None:
        return rows

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        _check_broadcast(x, other)
        return x - other

    def backward(
        self, grad_y: Tensor, specs: Specs, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_x = grad_y.sum_to_size(specs["x"].shape) if "x" in wanted else None
        grad_other = -grad_y.sum_to_size(specs["other"].shape) if "other" in wanted else None
        return grad_x, grad_other


def _check_broadcast(x: Tensor, other: Tensor) -> None:
    """Raise GraphError unless the two shapes are equal from the end, except where a size is 1."""
    pairs = zip(reversed(x.shape), reversed(other.shape), strict=False)
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        raise GraphError(
            f"expected inputs whose sizes are equal from the last axis on, except for sizes of 1, got "
            f"{' and '.join(_shapes(x, other))}"
        )


def _shapes(*xs: Tensor) -> list[str]:
    return ["x".join(map(str, x.shape)) for x in xs]
