"""Layers that bring several values together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.layer import Layer, Precision, Specs


class Add(Layer):
    """The sum of any number of tensors of one shape. Each input's gradient is grad_y itself."""

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
    """Tensors one after the other along `dim` (the channels by default), as torch.cat.

    The other axes must agree. Each input's gradient is its part of grad_y, a view.
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
        return rows if self.dim % 4 in (0, 1) else None

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, ...]:
        return torch.split(grad_y, [spec.shape[self.dim] for spec in specs["xs"]], self.dim)


def _shapes(*xs: Tensor) -> list[str]:
    return ["x".join(map(str, x.shape)) for x in xs]
