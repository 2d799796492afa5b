"""Activations: elementwise, any shape, any strides, any floating dtype."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Precision, Spec, Specs


class ReLU(Layer):
    """max(x, 0), elementwise. The gradient passes where y > 0; at 0 it is 0. Backward keeps y."""

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.masked_fill(y <= 0, 0)  # not "where y > 0": NaN must go through


class LeakyReLU(Layer):
    """x above 0, negative_slope * x below, elementwise, as torch.nn.LeakyReLU (Maas et al. 2013).

    x, y: any shape. The derivative is 1 where x > 0 and the slope elsewhere. Since the slope is not
    negative, y > 0 says the same: backward keeps y.
    Raises DescriptionError for a negative slope.

    >>> LeakyReLU(negative_slope=0.5).forward(torch.tensor([-2.0, 3.0]))
    tensor([-1.,  3.])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("y",)  # rounding keeps signs
    negative_slope: NonNegativeFloat = 0.01

    def forward(self, x: Tensor) -> Tensor:
        return x.where(x > 0, x * self.negative_slope)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.where(y > 0, grad_y * self.negative_slope)


class PReLU(Layer):
    """x above 0, weight * x below, the slopes trained, as torch.nn.PReLU (He et al. 2015, eq. 1).

    x, y: any shape; weight: (num_parameters,), which starts from `init`. One slope serves all elements;
    more, or null for as many as there are, belong to the channels, axis 1 of x.
    Where x <= 0 (their eq. 3), dx = weight g and dweight is the sum of g x; above, dx = g.
    Backward keeps x: with a negative slope y does not tell its sign.
    Raises GraphError where the number of slopes is not that of the channels.

    >>> PReLU(num_parameters=64).init
    0.25
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("x",)
    num_parameters: PositiveInt | None = 1
    init: float = 0.25

    def slopes(self, x: Spec) -> int:
        """The number of slopes, checked against the channels."""
        channels = x.shape[1] if len(x.shape) > 1 else 1
        if self.num_parameters not in (None, 1, channels):
            raise GraphError(
                f"expected {self.num_parameters} channels, one for each slope, got {channels} in {x}. "
                f"Set num_parameters: {channels}, or 1 for a slope that all of them share."
            )
        return self.num_parameters or channels

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"weight": ParameterSpec((self.slopes(specs["x"]),), Constant(self.init))}

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x.where(x > 0, x * beside(weight, x))

    def backward(self, grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        slopes = beside(weight, x)
        grad_x = grad_y.where(x > 0, grad_y * slopes)
        below = (grad_y * x).masked_fill(x > 0, 0)
        return grad_x, below.sum_to_size(slopes.shape).reshape(weight.shape)


def beside(weight: Tensor, x: Tensor) -> Tensor:
    """A weight (C,) or (1,) with the axes to stand beside x, whose channels are axis 1."""
    return weight.view(-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else weight.view((1,) * x.ndim)


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


class Tanh(Layer):
    """tanh(x), elementwise, as torch.nn.Tanh; the derivative is 1 - y^2. x: any shape. Backward keeps y."""

    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * (1 - y * y)
