"""Activations: elementwise functions of tensors of any shape, strides and floating dtype."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Precision, Spec, Specs


class ReLU(Layer):
    """max(x, 0), elementwise.

    The derivative is 1 where y > 0, else 0. x, y: any shape. Backward keeps y.
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.masked_fill(y <= 0, 0)  # not grad_y.where(y > 0, 0), which would hide a NaN


class LeakyReLU(Layer):
    """x where x > 0, else negative_slope * x, elementwise, as torch.nn.LeakyReLU (Maas et al. 2013).

    The derivative is 1 where x > 0, else negative_slope. As the slope is not negative, x > 0 and y > 0 are
    the same. x, y: any shape. Backward keeps y.

    Raises:
        DescriptionError: negative_slope is negative.

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
    """x where x > 0, else weight * x, with trained slopes, as torch.nn.PReLU (He et al. 2015, eq. 1).

    With g the gradient of y: dx = g where x > 0, else weight g;  dweight = sum of g x where x <= 0 (eq. 3).
    x, y: any shape; weight: (num_parameters,), which starts from `init`: one slope for all elements, or one
    for each channel, axis 1 of x. num_parameters null takes the number of channels.
    Backward keeps x, since the sign of y does not show that of x where a slope is negative.

    Raises:
        GraphError: num_parameters is neither 1 nor the number of channels.

    >>> PReLU(num_parameters=64).init
    0.25
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("x",)
    num_parameters: PositiveInt | None = 1
    init: float = 0.25

    def slopes(self, x: Spec) -> int:
        """Return the number of slopes. Raises GraphError unless it is 1 or the number of channels."""
        channels = x.shape[1] if len(x.shape) > 1 else 1
        if self.num_parameters not in (None, 1, channels):
            raise GraphError(
                f"expected {self.num_parameters} channels, one for each slope, got {channels} in {x}. "
                f"Set num_parameters: {channels}, or 1 for a slope that all channels share."
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
    """Reshape a weight (C,) or (1,) so that it broadcasts along axis 1 of x, its channels."""
    return weight.view(-1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else weight.view((1,) * x.ndim)


class Sigmoid(Layer):
    """s(x) = 1 / (1 + exp(-x)), elementwise.

    The derivative is s (1 - s). To avoid overflow, s is computed from e = exp(-|x|) <= 1: it is 1 / (1 + e)
    where x >= 0, else e / (1 + e). x, y: any shape. Backward keeps y.
    """

    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        e = (-x.abs()).exp()
        return e.where(x < 0, 1) / (1 + e)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * (y * (1 - y))


class Tanh(Layer):
    """tanh(x), elementwise, as torch.nn.Tanh.

    The derivative is 1 - y^2. x, y: any shape. Backward keeps y.
    """

    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * (1 - y * y)
