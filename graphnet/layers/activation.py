"""Activations: elementwise, any shape, any strides, any floating dtype."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from graphnet.layer import Layer, Precision


class ReLU(Layer):
    """max(x, 0), elementwise. The gradient passes where y > 0; at 0 it is 0. Backward keeps y."""

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.masked_fill(y <= 0, 0)  # not "where y > 0": NaN must go through


class Sigmoid(Layer):
    """s(x) = 1 / (1 + exp(-x)), elementwise; the derivative is s (1 - s). Backward keeps y.

    Written with exp(-|x|) <= 1, so that no x overflows: s(x) = 1 / (1 + e) for x >= 0, e / (1 + e)
    below, with e = exp(-|x|).
    """

    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        e = (-x.abs()).exp()
        return e.where(x < 0, 1) / (1 + e)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * (y * (1 - y))
