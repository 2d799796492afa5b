"""Losses that compare element by element: 0-dim functions of a prediction and a target of one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from graphnet.errors import ContractError, GraphError
from graphnet.sdk import Layout, Loss


class DifferenceLoss(Loss):
    """The mean of a penalty of d = prediction - target over all elements, channels included.

    prediction, target: any shape, the same, float; loss: 0-dim. The prediction's gradient is the
    penalty's slope at d / numel, the target gets none. Backward keeps d.
    Raises GraphError for a target of another shape.
    """

    saves: ClassVar[tuple[str, ...]] = ("difference",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def penalty(self, difference: Tensor) -> Tensor:
        """What each element adds to the mean."""
        raise ContractError(f"{type(self).__name__} defines no penalty(difference)")

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        """The penalty's derivative times a 0-dim scale."""
        raise ContractError(f"{type(self).__name__} defines no slope(difference, scale)")

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        difference = subtract(prediction, target)
        return self.penalty(difference).mean(), difference

    def backward(self, grad_loss: Tensor, difference: Tensor) -> tuple[Tensor, None]:
        return self.slope(difference, grad_loss * (1.0 / max(1, difference.numel()))), None


class MSE(DifferenceLoss):
    """mean(d^2), as torch.nn.MSELoss; the slope is 2 d."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference * difference

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference * (2.0 * scale)


class L1(DifferenceLoss):
    """mean(|d|), as torch.nn.L1Loss; the slope is the sign of d, 0 at 0."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.abs()

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference.sign() * scale


class Huber(DifferenceLoss):
    """d^2 / 2 up to |d| = delta, then a line of slope delta: the mean, as torch.nn.HuberLoss.

    Huber 1964. With c = min(|d|, delta) both parts are c (|d| - c / 2); the slope is d, held within
    -delta .. delta.

    >>> Huber(delta=0.5).delta
    0.5
    """

    delta: PositiveFloat = 1.0

    def penalty(self, difference: Tensor) -> Tensor:
        size = difference.abs()
        held = size.clamp_max(self.delta)
        return held * (size - 0.5 * held)

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference.clamp(-self.delta, self.delta) * scale


class Charbonnier(DifferenceLoss):
    """mean(sqrt(d^2 + eps^2)): |d|, rounded off within about eps of 0 (Charbonnier et al. 1994).

    Lai et al. 2017, "Deep Laplacian Pyramid Networks", section 3.3, with eps = 1e-3 as there. The slope
    is d / sqrt(d^2 + eps^2).
    """

    eps: PositiveFloat = 1e-3

    def penalty(self, difference: Tensor) -> Tensor:
        return (difference.square() + self.eps**2).sqrt()

    def slope(self, difference: Tensor, scale: Tensor) -> Tensor:
        return difference * (scale / self.penalty(difference))


class PSNR(Loss):
    """10 log10(mse + eps) of each image, then the mean: minus the PSNR, in dB, of images in 0..1.

    Chen et al. 2022, "Simple Baselines for Image Restoration": with mse_n = mean((prediction -
    target)^2) over image n, loss = sum_n 10 log10(mse_n + eps) / N. It falls as the PSNR rises, and is
    below 0 for any usable image. An image's gradient is
        20 / (ln 10 N M) (prediction - target) / (mse_n + eps),
    M elements an image: images weigh by their relative error, whatever its size.

    prediction, target: (N, ...), float, the same shape; loss: 0-dim. The target gets no gradient.
    Backward keeps the difference, and mse_n + eps (N,). Raises GraphError for a target of another
    shape, or for fewer than two axes.
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
                f"expected images, the first axis counting them, got {tuple(prediction.shape)}"
            )
        difference = subtract(prediction, target)
        error = difference.square().mean(tuple(range(1, difference.ndim))) + self.eps
        return 10.0 * error.log10().mean(), difference, error

    def backward(self, grad_loss: Tensor, difference: Tensor, error: Tensor) -> tuple[Tensor, None]:
        scale = grad_loss * (20.0 / (math.log(10.0) * max(1, difference.numel())))
        each = (scale / error).view(-1, *[1] * (difference.ndim - 1))
        return difference * each, None


def subtract(prediction: Tensor, target: Tensor) -> Tensor:
    """prediction - target. Raises GraphError unless their shapes are equal."""
    check_shape("target", target, prediction)
    return prediction - target


def check_shape(name: str, found: Tensor, prediction: Tensor) -> None:
    """Raise GraphError unless a tensor of this name has the prediction's shape."""
    if found.shape != prediction.shape:
        raise GraphError(
            f"expected a {name} of the prediction's shape {tuple(prediction.shape)}, "
            f"got {tuple(found.shape)}"
        )
