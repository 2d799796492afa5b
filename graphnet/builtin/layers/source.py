"""Layers that return a tensor of their own: a trained parameter, or a fixed buffer."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from graphnet.sdk import Constant, Layer, ParameterSpec, Precision, Specs, StateSpec


class TrainedTensor(Layer):
    """A trained tensor as a value, such as a position embedding or a class token: torch.nn.Parameter.

    y = value, which starts from `init`. The gradient of value is grad_y. x is any value of the model; the
    layer takes only its device. x: any shape and dtype; value, y: `shape`. Backward keeps no tensor.

    >>> TrainedTensor(shape=(2,)).forward(torch.zeros(1), torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("x",)
    precision: ClassVar[Precision] = "compute"
    shape: tuple[NonNegativeInt, ...]
    init: float = 0.0

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"value": ParameterSpec(self.shape, Constant(self.init))}

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        return value

    def backward(self, grad_y: Tensor) -> tuple[None, Tensor]:
        return None, grad_y


class FixedTensor(Layer):
    """A fixed tensor as a value, such as a table of positions or a mask: a buffer of torch.nn.Module.

    y = value, which starts from `init` and is not trained. x is any value of the model; the layer takes only
    its device. x: any shape and dtype; value, y: `shape`, of the dtype `dtype`; null is that of the model.
    Backward keeps no tensor.

    >>> FixedTensor(shape=(2,)).forward(torch.zeros(1), torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("x",)
    precision: ClassVar[Precision] = "follow"
    shape: tuple[NonNegativeInt, ...]
    dtype: Literal["int64", "int32", "int16", "int8", "uint8", "bool"] | None = None
    init: float = 0.0

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        dtype = None if self.dtype is None else getattr(torch, self.dtype)
        return {"value": StateSpec(self.shape, Constant(self.init), dtype)}

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        return value

    def backward(self, grad_y: Tensor) -> None:
        return None
