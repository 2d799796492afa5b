"""ATen kernels of piecewise linear activations, and of ELU: each gradient as one operator."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.builtin.kernels.aten.activation import Activation
from graphnet.sdk import Layer

_aten = torch.ops.aten


class AtenHardtanh(Activation):
    """hardtanh and its gradient as one operator each."""

    replaces = "hardtanh(x)"
    min_val: float
    max_val: float

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardtanh.default(x, self.min_val, self.max_val)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardtanh_.default(x, self.min_val, self.max_val)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.default(grad_y, x, self.min_val, self.max_val)
        return grad

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.grad_input(
            grad_y, x, self.min_val, self.max_val, grad_input=grad_y
        )
        return grad


class AtenReLU6(Activation):
    """relu6 and its gradient, from y, as one operator each."""

    replaces = "relu6(x)"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardtanh.default(x, 0, 6)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardtanh_.default(x, 0, 6)
        return y

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.default(grad_y, y, 0, 6)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.grad_input(grad_y, y, 0, 6, grad_input=grad_y)
        return grad


class AtenHardsigmoid(Activation):
    """hardsigmoid in place where possible; aten's own gradient has 1/6 to 8 digits only, even in float64."""

    replaces = "hardsigmoid(x)"

    def forward(self, x: Tensor) -> Tensor:
        return x.add(3).clamp_(0, 6).div_(6)

    def forward_(self, x: Tensor) -> Tensor:
        return x.add_(3).clamp_(0, 6).div_(6)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.default(grad_y, x, -3, 3)
        return grad.div_(6)

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardtanh_backward.grad_input(grad_y, x, -3, 3, grad_input=grad_y)
        return grad.div_(6)


class AtenHardswish(Activation):
    """hardswish and its gradient as one operator each."""

    replaces = "hardswish(x)"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardswish.default(x)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.hardswish_.default(x)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardswish_backward.default(grad_y, x)
        return grad

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.hardswish_backward.out(grad_y, x, out=grad_y)
        return grad


class AtenELU(Activation):
    """elu and its gradient, from y, as one operator each."""

    replaces = "elu(x)"
    alpha: float

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.elu.default(x, self.alpha)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.elu_.default(x, self.alpha)
        return y

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.elu_backward.default(grad_y, self.alpha, 1.0, 1.0, True, y)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.elu_backward.grad_input(
            grad_y, self.alpha, 1.0, 1.0, True, y, grad_input=grad_y
        )
        return grad


KERNELS: dict[str, type[Layer]] = {
    "aten/hardtanh": AtenHardtanh,
    "aten/relu6": AtenReLU6,
    "aten/hardsigmoid": AtenHardsigmoid,
    "aten/hardswish": AtenHardswish,
    "aten/elu": AtenELU,
}
