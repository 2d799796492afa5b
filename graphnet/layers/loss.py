"""Losses: 0-dim functions of a prediction and a target of the same shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from graphnet.errors import GraphError
from graphnet.layer import Loss
from graphnet.layout import Layout


class MSE(Loss):
    """mean((prediction - target)^2) over all elements, channels included, as torch.nn.MSELoss.

    prediction, target: any shape, the same. The gradient is 2 (prediction - target) / numel; the
    target gets none. Backward keeps the difference.
    """

    saves: ClassVar[tuple[str, ...]] = ("difference",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if prediction.shape != target.shape:
            raise GraphError(
                f"expected a target of the prediction's shape {tuple(prediction.shape)}, "
                f"got {tuple(target.shape)}"
            )
        difference = prediction - target
        return (difference * difference).mean(), difference

    def backward(self, grad_loss: Tensor, difference: Tensor) -> tuple[Tensor, None]:
        return difference * (grad_loss * (2.0 / max(1, difference.numel()))), None
