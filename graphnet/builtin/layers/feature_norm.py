"""Layer norm and RMS norm over the last axes, forward and backward."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic
import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.builtin.layers.axes import as_tuple
from graphnet.builtin.layers.norm import input_gradient
from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Spec, Specs

LastAxes = Annotated[
    tuple[PositiveInt, ...],
    pydantic.Field(min_length=1),
    pydantic.BeforeValidator(as_tuple, json_schema_input_type=int | tuple[int, ...]),
]
"""The sizes of the last axes; one integer stands for the last axis alone, as in torch."""


class LayerNorm(Layer):
    """Normalizes the last axes to mean 0 and variance 1, as torch.nn.LayerNorm (Ba et al. 2016, eq. 3).

        mean = mean of x;  r = 1 / sqrt(mean of (x - mean)^2 + eps);  z = (x - mean) r;  y = weight z + bias,
    with means over the last axes. With g the gradient of y, and h = weight g that of z:
        dweight = sum g z;  dbias = sum g, over the other axes;  dx = r (h - mean of h - z mean of (h z)).

    normalized_shape: the sizes of the last axes, as in torch; left out, it is the last axis of x alone.
    x, y: (..., *normalized_shape), float; weight, bias: normalized_shape, none without elementwise_affine; no
    bias if `bias` is false. Backward keeps x, mean and r, which have size 1 on the last axes.

    Raises:
        GraphError: x does not end with normalized_shape.

    >>> LayerNorm().forward(torch.tensor([1.0, 3.0]), None, None)[0]
    tensor([-1.0000,  1.0000])
    >>> LayerNorm(normalized_shape=8).normalized_shape, LayerNorm(normalized_shape=[2, 3]).normalized_shape
    ((8,), (2, 3))
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    normalized_shape: LastAxes | None = None
    eps: NonNegativeFloat = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        shape = last_axes(specs["x"], self.normalized_shape)
        affine = self.elementwise_affine
        return {
            "weight": ParameterSpec(shape, Constant(1.0)) if affine else None,
            "bias": ParameterSpec(shape, Constant(0.0)) if affine and self.bias else None,
        }

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that are normalized, counted from the end."""
        return tuple(range(-len(self.normalized_shape or (1,)), 0))

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(self.axes, keepdim=True)
        centered = x - mean
        inverse_std = (centered.square().mean(self.axes, keepdim=True) + self.eps).rsqrt()
        y = centered * inverse_std
        y = y if weight is None else y * weight
        return y if bias is None else y + bias, mean, inverse_std

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
        specs: Specs,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        z = (x - mean) * inverse_std
        grad_x = grad_weight = grad_bias = None
        if "x" in wanted:
            h = grad_y if weight is None else grad_y * weight
            grad_x = input_gradient(h, z, z, inverse_std, self.axes, subtract_mean=True)
        if "weight" in wanted:
            grad_weight = (grad_y * z).sum_to_size(specs["weight"].shape)
        if "bias" in wanted:
            grad_bias = grad_y.sum_to_size(specs["bias"].shape)
        return grad_x, grad_weight, grad_bias


class RMSNorm(Layer):
    """Divides by the root mean square of the last axes, as torch.nn.RMSNorm (Zhang & Sennrich 2019, eq. 4).

        r = 1 / sqrt(mean of x^2 + eps);  z = x r;  y = weight z, with the mean over the last axes.
    With g the gradient of y, and h = weight g that of z:
        dweight = sum of g z over the other axes;  dx = r (h - z mean of (h z)).

    normalized_shape: the sizes of the last axes, as in torch; left out, it is the last axis of x alone.
    eps: left out, it is torch.finfo(dtype of x).eps, as in torch. x, y: (..., *normalized_shape), float;
    weight: normalized_shape, none without elementwise_affine. Backward keeps x, and r with size 1 there.

    Raises:
        GraphError: x does not end with normalized_shape.

    >>> RMSNorm().forward(torch.tensor([3.0, -3.0]), None)[0]
    tensor([ 1., -1.])
    """

    saves: ClassVar[tuple[str, ...]] = ("inverse_rms",)
    normalized_shape: LastAxes | None = None
    eps: NonNegativeFloat | None = None
    elementwise_affine: bool = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        shape = last_axes(specs["x"], self.normalized_shape)
        return {"weight": ParameterSpec(shape, Constant(1.0)) if self.elementwise_affine else None}

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that are normalized, counted from the end."""
        return tuple(range(-len(self.normalized_shape or (1,)), 0))

    def forward(self, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        inverse_rms = (x.square().mean(self.axes, keepdim=True) + eps).rsqrt()
        y = x * inverse_rms
        return y if weight is None else y * weight, inverse_rms

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        inverse_rms: Tensor,
        wanted: frozenset[str],
        specs: Specs,
    ) -> tuple[Tensor | None, Tensor | None]:
        z = x * inverse_rms
        grad_x = grad_weight = None
        if "x" in wanted:
            h = grad_y if weight is None else grad_y * weight
            grad_x = input_gradient(h, z, z, inverse_rms, self.axes, subtract_mean=False)
        if "weight" in wanted:
            grad_weight = (grad_y * z).sum_to_size(specs["weight"].shape)
        return grad_x, grad_weight


def last_axes(x: Spec, stated: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the sizes of the last axes. Raises GraphError unless x ends with the stated ones."""
    shape = x.shape[-len(stated or (1,)) :]
    if not shape or 0 in shape or stated not in (None, shape):
        ends = "at least one axis" if stated is None else f"the last axes {list(stated)}"
        raise GraphError(f"expected an input with {ends}, of no size 0, got {x}")
    return shape
