"""Softmax and its logarithm over one axis, forward and backward."""

from __future__ import annotations

from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer


class Softmax(Layer):
    """y = exp(x) / sum of exp(x) over the axis `dim`, as torch.nn.Softmax.

    With g the gradient of y: dx = y (g - sum of g y over the axis). x, y: any shape with that axis, float.
    Backward keeps y.

    Raises:
        GraphError: x has no axis `dim`.

    >>> Softmax().forward(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    dim: int = -1

    def forward(self, x: Tensor) -> Tensor:
        check_axis(x, self.dim)
        return x.softmax(self.dim)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return y * (grad_y - (grad_y * y).sum(self.dim, keepdim=True))


class LogSoftmax(Layer):
    """y = x - log of the sum of exp(x) over the axis `dim`, as torch.nn.LogSoftmax.

    With g the gradient of y: dx = g - exp(y) (sum of g over the axis). x, y: any shape with that axis, float.
    Backward keeps y.

    Raises:
        GraphError: x has no axis `dim`.

    >>> LogSoftmax().forward(torch.zeros(2))
    tensor([-0.6931, -0.6931])
    """

    dim: int = -1

    def forward(self, x: Tensor) -> Tensor:
        check_axis(x, self.dim)
        return x.log_softmax(self.dim)

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y - y.exp() * grad_y.sum(self.dim, keepdim=True)


def check_axis(x: Tensor, dim: int) -> None:
    """Raise GraphError unless x has this axis."""
    if not -x.ndim <= dim < x.ndim:
        raise GraphError(f"expected an input with an axis {dim}, got the shape {tuple(x.shape)}")
