"""Layers that split a tensor along one axis, or take a part of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision, Specs


class Split(Layer):
    """Splits a tensor into two along `dim`: the first `size` elements and the rest, as torch.split.

    `size` is half of the axis by default. In a model, the id `s` of a split names its output `first`, and
    `s.rest` its output `rest`. For more than two parts, split the rest again.

    x: (..., K, ...) with size K on axis `dim`; first: the same with `size` elements on that axis; rest: with
    K - size. Both are views of x. The gradient of x is the concatenation of the two outputs' gradients.
    Backward keeps no tensor.

    Raises:
        GraphError: an output would be empty, `size` is not given and K is odd, or x has no axis `dim`.

    >>> [part.tolist() for part in Split(size=1, dim=0).forward(torch.arange(3))]
    [[0], [1, 2]]
    """

    outputs: ClassVar[tuple[str, ...]] = ("first", "rest")
    precision: ClassVar[Precision] = "follow"
    size: PositiveInt | None = None
    dim: int = 1

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the sizes of the two outputs along `dim`."""
        if not -len(shape) <= self.dim < len(shape):
            raise GraphError(f"expected an input with an axis {self.dim}, got the shape {shape}")
        total = shape[self.dim]
        if self.size is None and total % 2:
            raise GraphError(
                f"cannot halve axis {self.dim} of {shape}, whose size is odd. Set size, the size of the "
                f"first output on that axis."
            )
        first = self.size or total // 2
        if first >= total:
            raise GraphError(
                f"expected more than size ({first}) elements on axis {self.dim}, got the shape {shape}"
            )
        return first, total - first

    def window(self, rows: range, axis: int) -> range | None:
        # counted from the end, an axis is a spatial one of images, signals or volumes
        return rows if 0 <= self.dim != axis + 2 else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, rest = torch.split(x, list(self.sizes(tuple(x.shape))), self.dim)
        return first, rest

    def backward(
        self, specs: Specs, grad_first: Tensor | None = None, grad_rest: Tensor | None = None
    ) -> Tensor:
        given = grad_first if grad_first is not None else grad_rest
        assert given is not None  # backward runs only if at least one output was used
        parts = []
        for size, grad in zip(self.sizes(specs["x"].shape), (grad_first, grad_rest), strict=True):
            shape = list(specs["x"].shape)
            shape[self.dim] = size
            parts.append(given.new_zeros(shape) if grad is None else grad)
        return torch.cat(parts, self.dim)


class Slice(Layer):
    """The elements start, start + step, ... along `dim`, up to `end` (without it), as x[:, start:end:step].

    start and end count from the end if they are negative, and are cut to the axis, as in Python; end left out
    is the end of the axis. dx is the gradient of y at these elements, and 0 elsewhere.
    x: (..., K, ...) with size K on axis `dim`; y: a view of x. Backward keeps no tensor.

    Raises:
        GraphError: no element is left, or x has no axis `dim`.

    >>> Slice(dim=0, start=-2).forward(torch.arange(5)).tolist()
    [3, 4]
    """

    precision: ClassVar[Precision] = "follow"
    dim: int = 1
    start: int = 0
    end: int | None = None
    step: PositiveInt = 1

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit: a part in the middle, every second element, the last one."""
        return [
            (cls(start=1, end=3), [(2, 4, 3)]),
            (cls(dim=-1, step=2), [(2, 3, 5)]),
            (cls(dim=0, start=-1), [(3, 2)]),
        ]

    def window(self, rows: range, axis: int) -> range | None:
        # counted from the end, an axis is a spatial one of images, signals or volumes
        return rows if 0 <= self.dim != axis + 2 else None

    def part(self, x: Tensor) -> Tensor:
        """Return the elements of x, a view."""
        if not -x.ndim <= self.dim < x.ndim:
            raise GraphError(
                f"expected an input with an axis {self.dim}, got the shape {tuple(x.shape)}"
            )
        before = (slice(None),) * (self.dim % x.ndim)
        return x[(*before, slice(self.start, self.end, self.step))]

    def forward(self, x: Tensor) -> Tensor:
        y = self.part(x)
        if not y.shape[self.dim]:
            raise GraphError(
                f"expected an input with elements from {self.start} to {self.end} on axis {self.dim}, got "
                f"the shape {tuple(x.shape)}"
            )
        return y

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        grad_x = grad_y.new_zeros(specs["x"].shape)
        self.part(grad_x).copy_(grad_y)
        return grad_x


class SimpleGate(Layer):
    """y = x1 * x2, the product of the two halves of the channels (Chen et al. 2022 (NAFNet), eq. 4).

    With g the gradient of y, the gradient of x is the concatenation of g x2 and g x1.
    x: (N, C, ...) with C even; y: (N, C / 2, ...). Backward keeps x.

    Raises:
        GraphError: x has no channel axis, or an odd number of channels.

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
