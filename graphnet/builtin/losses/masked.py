"""Losses over the pixels that a mask selects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.builtin.losses.pixel import check_shape, subtract
from graphnet.sdk import Layer, Layout, Loss

_LEAST = 1e-12  # the least divisor, so that an empty mask gives a loss of 0


class MaskedMSE(Loss):
    """sum(mask (prediction - target)^2) / sum(mask), as used for blind spots (Krull et al. 2019).

    The prediction's gradient is 2 mask (prediction - target) / sum(mask); target and mask get no gradient.
    prediction, target, mask: the same shape, any; loss: 0-dim. mask is the weight of each element, at least
    0; if all weights are 0, the loss is 0. Backward keeps mask (prediction - target), and sum(mask).

    Raises:
        GraphError: the shapes differ.
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

    def weight(self, *targets: Tensor) -> Tensor:
        _, mask = targets
        return mask.sum()

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[Any]]]:
        """A sample for the conformance kit, which draws no weights of at least 0."""
        mask = torch.linspace(0.0, 1.0, 288, dtype=torch.float64).reshape(2, 4, 6, 6)
        return [(cls(), [(2, 4, 6, 6), (2, 4, 6, 6), mask])]
