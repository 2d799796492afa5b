"""Layers that take a tensor apart along one axis."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision, Specs


class Split(Layer):
    """The first `size` places along `dim`, and the rest of them: two outputs, as torch.split gives.

    `size` is half of the axis where it is not given. A node `s` of a model is its `first` output, and
    `s.rest` the other. For more parts, split the rest again.

    x: (..., K, ...) with K places on axis `dim`; first: the same with `size` of them, rest: with
    K - size. Both are views of x. The gradient of x is their gradients one after the other. Backward
    keeps nothing.
    Raises GraphError where an output would be empty, or an odd axis is to be halved.

    >>> [part.tolist() for part in Split(size=1, dim=0).forward(torch.arange(3))]
    [[0], [1, 2]]
    """

    outputs: ClassVar[tuple[str, ...]] = ("first", "rest")
    precision: ClassVar[Precision] = "follow"
    size: PositiveInt | None = None
    dim: int = 1

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The places along `dim` of the first output, and of the rest."""
        if not -len(shape) <= self.dim < len(shape):
            raise GraphError(f"expected an input with an axis {self.dim}, got the shape {shape}")
        total = shape[self.dim]
        if self.size is None and total % 2:
            raise GraphError(
                f"cannot halve axis {self.dim} of {shape}, which is odd. Set size, how much of it the "
                f"first output gets."
            )
        first = self.size or total // 2
        if first >= total:
            raise GraphError(
                f"expected more than size ({first}) places on axis {self.dim}, got the shape {shape}"
            )
        return first, total - first

    def window(self, rows: range, axis: int) -> range | None:
        return None if self.dim in (axis + 2, axis - 2) else rows  # of N C H W, from either end

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, rest = torch.split(x, list(self.sizes(tuple(x.shape))), self.dim)
        return first, rest

    def backward(
        self, specs: Specs, grad_first: Tensor | None = None, grad_rest: Tensor | None = None
    ) -> Tensor:
        given = grad_first if grad_first is not None else grad_rest
        assert given is not None  # backward runs where one of the outputs was used
        parts = []
        for size, grad in zip(self.sizes(specs["x"].shape), (grad_first, grad_rest), strict=True):
            shape = list(specs["x"].shape)
            shape[self.dim] = size
            parts.append(given.new_zeros(shape) if grad is None else grad)
        return torch.cat(parts, self.dim)


class SimpleGate(Layer):
    """y = x1 * x2, the two halves of the channels (NAFNet: Chen et al. 2022, eq. 4).

    With g the gradient of y, that of x is g x2 over g x1.
    x: (N, C, ...) with C even; y: (N, C / 2, ...). Backward keeps x.
    Raises GraphError where the channels cannot be halved.

    >>> SimpleGate().forward(torch.tensor([[2.0, 3.0, 10.0, 100.0]]))
    tensor([[ 20., 300.]])
    """

    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("x",)

    def window(self, rows: range, axis: int) -> range | None:
        return rows

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] % 2:
            raise GraphError(
                f"expected an even number of channels on axis 1, got the shape {tuple(x.shape)}"
            )
        one, other = x.chunk(2, 1)
        return one * other

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return torch.cat((grad_y * other, grad_y * one), 1)
