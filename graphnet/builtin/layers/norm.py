"""Batch norm: normalization over the batch, forward and backward."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Spec, Specs, StateSpec


class BatchNorm2d(Layer):
    """Normalizes each channel to mean 0 and variance 1 over the batch, as torch.nn.BatchNorm2d.

    Ioffe & Szegedy 2015, algorithm 1, over the n = N H W values of a channel:
        mean = sum x / n;  var = sum (x - mean)^2 / n;  z = (x - mean) / sqrt(var + eps);
        y = weight z + bias.
    With g the gradient of y, the equations of their section 3 give
        dweight = sum g z;  dbias = sum g;
        dx = weight / sqrt(var + eps) (g - dbias / n - z dweight / n).
    A training step adds momentum (mean - running_mean) to running_mean, and momentum (v - running_var) to
    running_var, where v = var n / (n - 1) is the unbiased variance, 0 if n is 1. Inference normalizes by
    running_mean and running_var in place of mean and var.

    x, y: (N, C, H, W), float; weight, bias: (C,), none if affine is false; running_mean, running_var: (C,).
    Backward keeps x, and the mean and 1 / sqrt(var + eps) of each channel.

    Raises:
        GraphError: x does not have the axes N C H W, or its channels are not the stated num_features.

    >>> BatchNorm2d(num_features=64, eps=1e-3).momentum
    0.1
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    num_features: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-5
    momentum: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    affine: bool = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = checked_channels(specs["x"], self.num_features, field="num_features")
        return {
            "weight": ParameterSpec((channels,), Constant(1.0)) if self.affine else None,
            "bias": ParameterSpec((channels,), Constant(0.0)) if self.affine else None,
        }

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        shape = (checked_channels(specs["x"], self.num_features, field="num_features"),)
        return {
            "running_mean": StateSpec(shape, Constant(0.0)),
            "running_var": StateSpec(shape, Constant(1.0)),
        }

    def window(self, rows: range, axis: int) -> range:
        return rows  # inference normalizes by states, not by statistics of x

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        n = _count(x)
        mean = x.sum(_AXES) / max(n, 1)
        centered = x - per_channel(mean)
        squares = centered.square().sum(_AXES)
        inverse_std = (squares / max(n, 1) + self.eps).rsqrt()
        y = centered * per_channel(inverse_std)
        if weight is not None and bias is not None:
            y = y * per_channel(weight) + per_channel(bias)
        next_mean = running_mean + self.momentum * (mean - running_mean)
        next_var = running_var + self.momentum * (squares / max(n - 1, 1) - running_var)
        return y, mean, inverse_std, next_mean, next_var

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        n = max(_count(x), 1)
        z = (x - per_channel(mean)) * per_channel(inverse_std)
        grad_bias = grad_y.sum(_AXES)
        grad_weight = (grad_y * z).sum(_AXES)
        grad_x = None
        if "x" in wanted:
            scale = inverse_std if weight is None else inverse_std * weight
            grad_x = per_channel(scale) * (
                grad_y - per_channel(grad_bias / n) - z * per_channel(grad_weight / n)
            )
        if weight is None:
            return grad_x, None, None
        return grad_x, grad_weight, grad_bias

    def inference(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> Tensor:
        scale = (running_var + self.eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        y = (x - per_channel(running_mean)) * per_channel(scale)
        return y if bias is None else y + per_channel(bias)

    def affine_map(
        self,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> tuple[Tensor, Tensor]:
        scale = (running_var + self.eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -running_mean * scale
        return scale, shift if bias is None else shift + bias


_AXES = (0, 2, 3)


def input_gradient(
    h: Tensor, z: Tensor, centered: Tensor, inverse_std: Tensor, axis: int, *, subtract_mean: bool
) -> Tensor:
    """The gradient of x for the gradient h of z, where z = (x - mean) r over the values of one axis.

    dx = r (h - mean of h - (x - mean) r mean of (h z)); without subtract_mean z is x r, and "mean of h"
    does not occur. `centered` is (x - mean) r, and `inverse_std` r = 1 / sqrt(var + eps). Batch norm has
    the same in fewer operations on images: its means of h and of h z are the gradients of bias and weight.
    """
    moved = h - h.mean(axis, keepdim=True) if subtract_mean else h
    return inverse_std * (moved - centered * (h * z).mean(axis, keepdim=True))


def affine_gradients(
    grad_y: Tensor, z: Tensor, wanted: frozenset[str]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of weight and bias, both (C,), in y = weight z + bias: None for what is not wanted."""
    grad_weight = (grad_y * z).sum(_AXES) if "weight" in wanted else None
    return grad_weight, grad_y.sum(_AXES) if "bias" in wanted else None


def _count(x: Tensor) -> int:
    """Return the number of values of one channel, N H W."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def per_channel(channels: Tensor) -> Tensor:
    """Reshape (C,) so that it broadcasts along the channels of (N, C, H, W)."""
    return channels.view(-1, 1, 1)


def checked_channels(x: Spec, expected: int | None, *, field: str) -> int:
    """Return the number of channels of an image.

    Args:
        x: the spec of the image, N C H W.
        expected: the number of channels that the configuration states; None allows any.
        field: the name of the field that states it, for the error message.

    Raises:
        GraphError: x does not have four axes, or has another number of channels.
    """
    if len(x.shape) != 4:
        raise GraphError(f"expected an input N x C x H x W, got {x}")
    channels = x.shape[1]
    if expected not in (None, channels):
        raise GraphError(
            f"expected {expected} input channels, got {channels}. "
            f"Set {field}: {channels}, or leave it out."
        )
    return channels
