"""Losses over a part of the pixels, which a mask picks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from graphnet.builtin.losses.pixel import check_shape, subtract
from graphnet.sdk import Layout, Loss

_LEAST = 1e-12  # of the mask's sum, so that an empty one gives a loss of 0


class MaskedMSE(Loss):
    """sum(mask (prediction - target)^2) / sum(mask), as for blind spots (Krull et al. 2019).

    prediction, target, mask: any shape, the same; mask 0 or more, 1 for what counts. An empty mask gives 0.
    The gradient is 2 mask (prediction - target) / sum(mask); target and mask get none. Backward keeps the
    masked difference and the sum. Raises GraphError for other shapes.
    """

    saves: ClassVar[tuple[str, ...]] = ("difference", "total")
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target", "mask")

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": (), "mask": ()}

    def forward(
        self, prediction: Tensor, target: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        difference = subtract(prediction, target)
        check_shape("mask", mask, prediction)
        masked = mask * difference
        total = mask.sum().clamp_min(_LEAST)
        return (masked * difference).sum() / total, masked, total

    def backward(
        self, grad_loss: Tensor, difference: Tensor, total: Tensor
    ) -> tuple[Tensor, None, None]:
        return difference * (2.0 * grad_loss / total), None, None
