"""mse with its slope in the same pass, so that the reverse pass reads the slope only.

torch.ops.graphnet_triton.mse(prediction, target): the mean of the squared differences, a number in float32,
and 2 (prediction - target) / elements, in the prediction's dtype and strides. The order of additions is
always the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.sdk import Kernel, Layout, Site
from graphnet_triton.launch import WIDE, ceil_div, register, runs_on, sums_of
from graphnet_triton.programs import losses

_BLOCK = 1024


def _shapes(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    loss = prediction.new_empty((), dtype=WIDE[prediction.dtype])
    return loss, torch.empty_like(prediction)


def _mse(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    prediction = _dense(prediction)
    loss, slope = _shapes(prediction, target)
    same = torch.empty_like(slope).copy_(target) if target.stride() != slope.stride() else target
    count = ceil_div(prediction.numel(), _BLOCK)
    parts = loss.new_empty(count)
    losses.squared_error[(count,)](
        *(prediction, same, slope, parts, prediction.numel()), SUM=sums_of(prediction), BLOCK=_BLOCK
    )
    losses.add_up[(1,)](parts, loss, COUNT=count, BLOCK=_BLOCK)
    return loss, slope


def _dense(x: Tensor) -> Tensor:
    """Return x without gaps or overlaps in memory, its elements in any order; a copy if it has some."""
    like = torch.empty_like(x)  # dense, with the strides of x if x is
    return x if like.stride() == x.stride() else like.copy_(x)


mse = register("mse(Tensor prediction, Tensor target) -> (Tensor, Tensor)", _mse, _shapes)


class TritonMSE(Kernel):
    """mse and its slope; it does not match empty batches."""

    replaces = "mse(prediction, target)"
    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    saves: ClassVar[tuple[str, ...]] = ("slope",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    overwrites: ClassVar[Mapping[str, str]] = {"grad_prediction": "slope"}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        x = site.specs["prediction"]
        fits = x is not None and x.numel and runs_on(site.device, x)
        return cls() if fits else None

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss, slope = mse(prediction, target)
        return loss, slope

    def backward(self, grad_loss: Tensor, slope: Tensor) -> tuple[Tensor, None]:
        return slope * grad_loss, None

    def backward_(self, grad_loss: Tensor, slope: Tensor) -> tuple[Tensor, None]:
        return slope.mul_(grad_loss), None


KERNELS: dict[str, type[Kernel]] = {"triton/mse": TritonMSE}
