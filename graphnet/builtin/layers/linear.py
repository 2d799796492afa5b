"""Linear: a matrix product along the last axis, forward and backward."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, LinearInit, ParameterSpec, Precision, Spec, Specs, weight_and_bias


class Linear(Layer):
    """y = x W^T + b along the last axis, as torch.nn.Linear.

    With g the gradient of y, and x and g as matrices whose rows are the last axis:
    dx = g W;  dW = g^T x;  db = the sum of g over the rows.

    x: (..., I); weight W: (O, I); bias b: (O,), none if the field `bias` is false; y: (..., O). Any floating
    dtype. in_features may be left out: I is then the size of the last axis. Parameters start as torch's:
    U(-k, k), k = 1 / sqrt(I). With weight_init, the weight starts as graphnet.sdk.initializers.Init of that
    name states, and the bias is 0. Backward keeps x.

    Raises:
        GraphError: x has no axes, or the size of its last axis is 0 or not the stated in_features.

    >>> Linear(out_features=10).parameters({"x": Spec((32, 64))})["weight"].shape
    (10, 64)
    """

    precision: ClassVar[Precision] = "compute"
    in_features: PositiveInt | None = None
    out_features: PositiveInt
    bias: bool = True
    weight_init: LinearInit | None = None

    def features(self, x: Spec) -> int:
        """Return the size of the last axis. Raises GraphError unless in_features allows it."""
        if not x.shape or x.shape[-1] == 0:
            raise GraphError(f"expected an input with features on its last axis, got {x}")
        if self.in_features not in (None, x.shape[-1]):
            raise GraphError(
                f"expected {self.in_features} features on the last axis, got {x}. "
                f"Set in_features: {x.shape[-1]}, or leave it out."
            )
        return x.shape[-1]

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        features = self.features(specs["x"])
        bias = (self.out_features,) if self.bias else None
        return weight_and_bias((self.out_features, features), bias, init=self.weight_init)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = x @ weight.t()
        return y if bias is None else y + bias

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows = grad_y.reshape(-1, weight.shape[0])
        return (
            grad_y @ weight if "x" in wanted else None,
            rows.t() @ x.reshape(-1, weight.shape[1]) if "weight" in wanted else None,
            rows.sum(0) if "bias" in wanted else None,
        )
