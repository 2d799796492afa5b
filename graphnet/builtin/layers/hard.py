"""Piecewise linear activations, and ELU: elementwise, for any shape, strides and floating dtype."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from graphnet.errors import DescriptionError, Problem
from graphnet.sdk import Bound, Layer, Precision


class Hardtanh(Layer):
    """x limited to the range from min_val to max_val, elementwise, as torch.nn.Hardtanh.

    The derivative is 1 where min_val < x < max_val, else 0. x, y: any shape. Backward keeps x: in bfloat16, y
    may be less than max_val where x is not.

    Raises:
        DescriptionError: min_val is not less than max_val.

    >>> Hardtanh(max_val=2.0).forward(torch.tensor([-3.0, 0.5, 4.0]))
    tensor([-1.0000,  0.5000,  2.0000])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    min_val: Bound = -1.0
    max_val: Bound = 1.0

    def __post_init__(self) -> None:
        if self.min_val >= self.max_val:
            message = f"expected more than min_val ({self.min_val}), found {self.max_val}"
            raise DescriptionError([Problem(message, "max_val")])

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.min_val, self.max_val)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return grad_y.masked_fill((x <= self.min_val) | (x >= self.max_val), 0)


class ReLU6(Layer):
    """min(max(x, 0), 6), elementwise, as torch.nn.ReLU6 (Howard et al. 2017, MobileNets).

    The derivative is 1 where 0 < x < 6, else 0. x, y: any shape. Backward keeps y.

    >>> ReLU6().forward(torch.tensor([-3.0, 0.5, 7.0]))
    tensor([0.0000, 0.5000, 6.0000])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0.0, 6.0)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.masked_fill((y <= 0) | (y >= 6), 0)


class Hardsigmoid(Layer):
    """min(max(x / 6 + 1/2, 0), 1), elementwise, as torch.nn.Hardsigmoid (Howard et al. 2019, section 5.2).

    The derivative is 1/6 where -3 < x < 3, else 0. x, y: any shape. Backward keeps x.

    >>> Hardsigmoid().forward(torch.tensor([-4.0, 0.0, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0.0, 6.0) / 6

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return (grad_y / 6).masked_fill((x <= -3) | (x >= 3), 0)


class Hardswish(Layer):
    """x min(max(x / 6 + 1/2, 0), 1), elementwise, as torch.nn.Hardswish (Howard et al. 2019, section 5.2).

    The derivative is 0 where x <= -3, 1 where x >= 3, and x / 3 + 1/2 between. x, y: any shape. Backward
    keeps x.

    >>> Hardswish().forward(torch.tensor([1.5, 3.0]))
    tensor([1.1250, 3.0000])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x * (x + 3).clamp(0.0, 6.0) / 6

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        inner = grad_y * (x / 3 + 0.5)
        return inner.where(x < 3, grad_y).masked_fill(x <= -3, 0)


class ELU(Layer):
    """x where x > 0, else alpha (exp(x) - 1), elementwise, as torch.nn.ELU (Clevert et al. 2016, eq. 15).

    The derivative is y + alpha where x <= 0, else 1. x, y: any shape. Backward keeps y, which has x's sign.

    >>> ELU(alpha=2.0).forward(torch.tensor([0.0, 3.0]))
    tensor([0., 3.])
    """

    pointwise: ClassVar[bool] = True
    alpha: PositiveFloat = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x.where(x > 0, self.alpha * x.clamp_max(0).expm1())

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return (grad_y * (y + self.alpha)).where(y <= 0, grad_y)
