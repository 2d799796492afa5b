"""Layers that scale by a fixed factor or by a trained weight for each channel, or add a fixed number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.builtin.layers.activation import beside
from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Precision, Spec, Specs


class Rescale(Layer):
    """factor * x, elementwise, as used before the sum of a residual block (Lim et al. 2017, section 3.3).

    The gradient of x is factor * grad_y. x, y: any shape. Backward keeps no tensor.

    >>> Rescale(factor=0.5).forward(torch.tensor([4.0, -1.0]))
    tensor([ 2.0000, -0.5000])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    overwrites: ClassVar[Mapping[str, str]] = {"y": "x", "grad_x": "grad_y"}
    factor: float

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def forward_(self, x: Tensor) -> Tensor:
        return x.mul_(self.factor)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * self.factor

    def backward_(self, grad_y: Tensor) -> Tensor:
        return grad_y.mul_(self.factor)


class AddScalar(Layer):
    """x + value, elementwise, with a fixed number, as torch.add with a number.

    The gradient of x is grad_y. x, y: any shape. Backward keeps no tensor.

    >>> AddScalar(value=3.0).forward(torch.tensor([4.0, -1.0]))
    tensor([7., 2.])
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    overwrites: ClassVar[Mapping[str, str]] = {"y": "x"}
    value: float

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value

    def forward_(self, x: Tensor) -> Tensor:
        return x.add_(self.value)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class LayerScale(Layer):
    """weight * x, with one trained weight for each channel (Touvron et al. 2021, section 2: LayerScale).

    It is the last layer of a residual branch. With a small `init`, the block starts close to the identity:
    1e-6 in ConvNeXt (Liu et al. 2022), 0 in NAFNet (Chen et al. 2022: beta and gamma).
    With g the gradient of y: dx = weight g;  dweight = sum of g x over all axes except axis 1.

    x, y: (N, C, ...); weight: (C,), which starts from `init`. Backward keeps x. Prediction folds the weight
    into the layer before it if that layer allows it, as conv2d does.

    Raises:
        GraphError: x has no channel axis.

    >>> LayerScale(init=0.0).parameters({"x": Spec((8, 64, 4, 4))})["weight"].shape
    (64,)
    """

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"
    kept: ClassVar[tuple[str, ...]] = ("x",)
    init: float = 1e-6

    def channels(self, x: Spec) -> int:
        """Return the number of channels. Raises GraphError if x has no channel axis."""
        if len(x.shape) < 2:
            raise GraphError(f"expected an input N x C x ..., got {x}")
        return x.shape[1]

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"weight": ParameterSpec((self.channels(specs["x"]),), Constant(self.init))}

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * beside(weight, x)

    def backward(self, grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = beside(weight, x)
        grad_weight = (grad_y * x).sum_to_size(scale.shape).reshape(weight.shape)
        return grad_y * scale, grad_weight

    def affine_map(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.clone(), torch.zeros_like(weight)
