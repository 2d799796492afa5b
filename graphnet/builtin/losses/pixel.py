"""Losses that compare a prediction and a target element by element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from graphnet.errors import ContractError, GraphError
from graphnet.sdk import Layout, Loss


class DifferenceLoss(Loss):
    """The mean over all elements of penalty(d), with d = prediction - target.

    The prediction's gradient is penalty'(d) / numel; the target gets no gradient.
    prediction, target: the same shape, any, float; loss: 0-dim. Backward keeps d. A subclass defines
    `penalty` and `slope`.

    Raises:
        GraphError: the shapes differ.
    """

    saves: ClassVar[tuple[str, ...]] = ("difference",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def penalty(self, difference: Tensor) -> Tensor:
        """Return the penalty of each element; the loss is its mean."""
        raise ContractError(f"{type(self).__name__} defines no penalty(difference)")

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        """Return the penalty's derivative, times a 0-dim scale."""
        raise ContractError(f"{type(self).__name__} defines no slope(difference, scale)")

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        difference = subtract(prediction, target)
        return self.penalty(difference).mean(), difference

    def backward(self, grad_loss: Tensor, difference: Tensor) -> tuple[Tensor, None]:
        return self.slope(difference, grad_loss * (1.0 / max(1, difference.numel()))), None


class MSE(DifferenceLoss):
    """mean(d^2) with d = prediction - target, as torch.nn.MSELoss; the slope is 2 d."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference * difference

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference * (2.0 * scale)


class L1(DifferenceLoss):
    """mean(|d|) with d = prediction - target, as torch.nn.L1Loss; the slope is the sign of d, 0 at 0."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.abs()

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference.sign() * scale


class Huber(DifferenceLoss):
    """The mean of d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), as torch.nn.HuberLoss.

    Huber 1964, with d = prediction - target. With c = min(|d|, delta), both cases are c (|d| - c / 2); the
    slope is d, clamped to -delta .. delta.

    >>> Huber(delta=0.5).delta
    0.5
    """

    delta: PositiveFloat = 1.0

    def penalty(self, difference: Tensor) -> Tensor:
        size = difference.abs()
        clamped = size.clamp_max(self.delta)
        return clamped * (size - 0.5 * clamped)

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference.clamp(-self.delta, self.delta) * scale


class Charbonnier(DifferenceLoss):
    """mean(sqrt(d^2 + eps^2)): the mean of |d|, but smooth around d = 0 (Charbonnier et al. 1994).

    Lai et al. 2017, "Deep Laplacian Pyramid Networks", section 3.3, with their eps = 1e-3 as the default and
    d = prediction - target. The slope is d / sqrt(d^2 + eps^2).
    """

    eps: PositiveFloat = 1e-3

    def penalty(self, difference: Tensor) -> Tensor:
        return (difference.square() + self.eps**2).sqrt()

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference * (scale / self.penalty(difference))


class PSNR(Loss):
    """The mean over the images of 10 log10(mse + eps): the negative PSNR in dB of images in 0..1.

    Chen et al. 2022, "Simple Baselines for Image Restoration": with mse_n = mean((prediction -
    target)^2) over image n, loss = sum_n 10 log10(mse_n + eps) / N. The gradient of image n is
        20 / (ln 10 N M) (prediction - target) / (mse_n + eps),
    with M the number of elements of an image: it depends on the relative error of the image, not on its size.

    prediction, target: (N, ...), float, the same shape; loss: 0-dim, in dB, usually negative. The target gets
    no gradient. Backward keeps prediction - target, and mse_n + eps (N,).

    Raises:
        GraphError: the shapes differ, or have fewer than two axes.
    """

    saves: ClassVar[tuple[str, ...]] = ("difference", "error")
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    eps: Annotated[float, Field(ge=0.0)] = 1e-8

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if prediction.ndim < 2:
            raise GraphError(
                f"expected images N x ..., at least two axes, got {tuple(prediction.shape)}"
            )
        difference = subtract(prediction, target)
        error = difference.square().mean(tuple(range(1, difference.ndim))) + self.eps
        return 10.0 * error.log10().mean(), difference, error

    def backward(self, grad_loss: Tensor, difference: Tensor, error: Tensor) -> tuple[Tensor, None]:
        scale = grad_loss * (20.0 / (math.log(10.0) * max(1, difference.numel())))
        each = (scale / error).view(-1, *[1] * (difference.ndim - 1))
        return difference * each, None


def subtract(prediction: Tensor, target: Tensor) -> Tensor:
    """Return prediction - target. Raises GraphError unless their shapes are equal."""
    check_shape("target", target, prediction)
    return prediction - target


def check_shape(name: str, found: Tensor, prediction: Tensor) -> None:
    """Raise GraphError unless a tensor of this name has the prediction's shape."""
    if found.shape != prediction.shape:
        raise GraphError(
            f"expected a {name} of the prediction's shape {tuple(prediction.shape)}, "
            f"got {tuple(found.shape)}"
        )
