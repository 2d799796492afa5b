"""ATen kernels of activations: each gradient as one operator, in place where the plan allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.activation import beside
from graphnet.builtin.layers.smooth import Softplus
from graphnet.sdk import Kernel, Layer, Site

_aten = torch.ops.aten


class Activation(Kernel):
    """Operators of aten on one input, in place where the plan allows it; fields are the layer's, by name."""

    pointwise: ClassVar[bool] = True
    overwrites: ClassVar[Mapping[str, str]] = {"y": "x", "grad_x": "grad_y"}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        return cls(**{name: getattr(layer, name) for name in cls.field_names()})


class AtenReLU(Activation):
    """relu with its gradient as one operator."""

    replaces = "relu(x)"

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()

    def forward_(self, x: Tensor) -> Tensor:
        return x.relu_()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.threshold_backward.default(grad_y, y, 0)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.threshold_backward.grad_input(grad_y, y, 0, grad_input=grad_y)
        return grad


class AtenLeakyReLU(Activation):
    """leaky_relu with its gradient, from y, as one operator."""

    replaces = "leaky_relu(x)"
    kept: ClassVar[tuple[str, ...]] = ("y",)
    negative_slope: float

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.leaky_relu.default(x, self.negative_slope)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.leaky_relu_.default(x, self.negative_slope)
        return y

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.leaky_relu_backward.default(grad_y, y, self.negative_slope, True)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.leaky_relu_backward.grad_input(
            grad_y, y, self.negative_slope, True, grad_input=grad_y
        )
        return grad


class AtenPReLU(Kernel):
    """prelu with both its products as one operator, forward and backward."""

    replaces = "prelu(x, weight)"
    pointwise: ClassVar[bool] = True

    @classmethod
    def match(cls, site: Site) -> Self | None:
        return cls()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = _aten._prelu_kernel.default(x, beside(weight, x))
        return y

    def backward(self, grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        slopes = beside(weight, x)
        grad_x, below = _aten._prelu_kernel_backward.default(grad_y, x, slopes)
        return grad_x, below.sum_to_size(slopes.shape).reshape(weight.shape)


class AtenSigmoid(Activation):
    """sigmoid with its gradient as one operator."""

    replaces = "sigmoid(x)"

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def forward_(self, x: Tensor) -> Tensor:
        return x.sigmoid_()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.sigmoid_backward.default(grad_y, y)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.sigmoid_backward.grad_input(grad_y, y, grad_input=grad_y)
        return grad


class AtenTanh(Activation):
    """tanh with its gradient as one operator."""

    replaces = "tanh(x)"

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()

    def forward_(self, x: Tensor) -> Tensor:
        return x.tanh_()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.tanh_backward.default(grad_y, y)
        return grad

    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        grad: Tensor = _aten.tanh_backward.grad_input(grad_y, y, grad_input=grad_y)
        return grad


class AtenGELU(Activation):
    """gelu and its gradient as one operator each; with "tanh", the gradient is NaN where x^2 overflows."""

    replaces = "gelu(x)"
    approximate: Literal["none", "tanh"]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.gelu.default(x, approximate=self.approximate)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.gelu_.default(x, approximate=self.approximate)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.gelu_backward.default(grad_y, x, approximate=self.approximate)
        return grad

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.gelu_backward.grad_input(
            grad_y, x, approximate=self.approximate, grad_input=grad_y
        )
        return grad


class AtenSiLU(Activation):
    """silu and its gradient as one operator each."""

    replaces = "silu(x)"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.silu.default(x)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.silu_.default(x)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.silu_backward.default(grad_y, x)
        return grad

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.silu_backward.grad_input(grad_y, x, grad_input=grad_y)
        return grad


class AtenSoftplus(Activation):
    """softplus and its gradient as one operator each; it does not match thresholds where exp overflows."""

    replaces = "softplus(x)"
    beta: float
    threshold: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, Softplus)
        return None if layer.threshold > _LARGEST_EXPONENT else super().match(site)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.softplus.default(x, self.beta, self.threshold)
        return y

    def forward_(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.softplus.out(x, self.beta, self.threshold, out=x)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.softplus_backward.default(grad_y, x, self.beta, self.threshold)
        return grad

    def backward_(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad: Tensor = _aten.softplus_backward.grad_input(
            grad_y, x, self.beta, self.threshold, grad_input=grad_y
        )
        return grad


_LARGEST_EXPONENT = 80.0  # aten takes exp(beta x) up to the threshold; in float32 88 is too much


KERNELS: dict[str, type[Layer]] = {
    "aten/relu": AtenReLU,
    "aten/leaky_relu": AtenLeakyReLU,
    "aten/prelu": AtenPReLU,
    "aten/sigmoid": AtenSigmoid,
    "aten/tanh": AtenTanh,
    "aten/gelu": AtenGELU,
    "aten/silu": AtenSiLU,
    "aten/softplus": AtenSoftplus,
}
