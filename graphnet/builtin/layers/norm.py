"""Batch norm: normalization over the batch, forward and backward."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.builtin.layers.channels import per_channel, pixel_axes, values_per_channel
from graphnet.builtin.layers.sync_norm import ChannelStatistics, NormByStatistics
from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Spec, Specs, StateSpec


class BatchNorm(Layer):
    """Normalizes each channel to mean 0 and variance 1 over the batch, over any number of axes.

    Ioffe & Szegedy 2015, algorithm 1, over the n values of a channel, those of all images and pixels:
        mean = sum x / n;  var = sum (x - mean)^2 / n;  z = (x - mean) / sqrt(var + eps);
        y = weight z + bias.
    With g the gradient of y, the equations of their section 3 give
        dweight = sum g z;  dbias = sum g;
        dx = weight / sqrt(var + eps) (g - dbias / n - z dweight / n).
    A training step adds momentum (mean - running_mean) to running_mean, and momentum (v - running_var) to
    running_var, where v = var n / (n - 1) is the unbiased variance, 0 if n is 1. Inference normalizes by
    running_mean and running_var in place of mean and var.

    In a training of several processes, each normalizes by its own samples, and running_mean and running_var
    are the means over the processes, as in torch. With sync, a step normalizes by the mean and the variance
    of the samples of all processes, as torch.nn.SyncBatchNorm does (see `NormByStatistics`).

    x, y: (N, C, *S), float; weight, bias: (C,), none if affine is false; running_mean, running_var: (C,).
    Backward keeps x, and the mean and 1 / sqrt(var + eps) of each channel.

    Raises:
        GraphError: x has another number of axes, or its channels are not the stated num_features.
    """

    ranks: ClassVar[tuple[int, ...]]
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    num_features: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-5
    momentum: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    affine: bool = True
    sync: bool = False

    def channels(self, x: Spec) -> int:
        """The number of channels. Raises GraphError unless the axes and num_features allow it."""
        return checked_channels(x, self.num_features, field="num_features", ranks=self.ranks)

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = self.channels(specs["x"])
        return scale_and_shift(channels) if self.affine else {"weight": None, "bias": None}

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        shape = (self.channels(specs["x"]),)
        return {
            "running_mean": StateSpec(shape, Constant(0.0)),
            "running_var": StateSpec(shape, Constant(1.0)),
        }

    def across_processes(self) -> tuple[Layer, Layer] | None:
        if not self.sync:
            return None
        return ChannelStatistics(), NormByStatistics(eps=self.eps, momentum=self.momentum)

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
        n = values_per_channel(x)
        mean = x.sum(pixel_axes(x)) / max(n, 1)
        centered = x - per_channel(mean, x)
        squares = centered.square().sum(pixel_axes(x))
        inverse_std = (squares / max(n, 1) + self.eps).rsqrt()
        y = centered * per_channel(inverse_std, x)
        if weight is not None and bias is not None:
            y = y * per_channel(weight, x) + per_channel(bias, x)
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
        n = max(values_per_channel(x), 1)
        z = (x - per_channel(mean, x)) * per_channel(inverse_std, x)
        grad_bias = grad_y.sum(pixel_axes(x))
        grad_weight = (grad_y * z).sum(pixel_axes(x))
        grad_x = None
        if "x" in wanted:
            scale = inverse_std if weight is None else inverse_std * weight
            grad_x = per_channel(scale, x) * (
                grad_y - per_channel(grad_bias / n, x) - z * per_channel(grad_weight / n, x)
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
        y = (x - per_channel(running_mean, x)) * per_channel(scale, x)
        return y if bias is None else y + per_channel(bias, x)

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


class BatchNorm1d(BatchNorm):
    """Normalizes each channel to mean 0 and variance 1 over the batch, as torch.nn.BatchNorm1d.

    See `BatchNorm` for its equations, fields and errors. x, y: (N, C, L) or (N, C).

    >>> BatchNorm1d(num_features=64).eps
    1e-05
    """

    ranks: ClassVar[tuple[int, ...]] = (2, 3)

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit: two values of a channel alone would leave only rounding errors."""
        return [(cls(), [(2, 4, 6)]), (cls(affine=False), [(3, 4, 5)])]


class BatchNorm2d(BatchNorm):
    """Normalizes each channel to mean 0 and variance 1 over the batch, as torch.nn.BatchNorm2d.

    See `BatchNorm` for its equations, fields and errors. x, y: (N, C, H, W).

    >>> BatchNorm2d(num_features=64, eps=1e-3).momentum
    0.1
    """

    ranks: ClassVar[tuple[int, ...]] = (4,)


class BatchNorm3d(BatchNorm):
    """Normalizes each channel to mean 0 and variance 1 over the batch, as torch.nn.BatchNorm3d.

    See `BatchNorm` for its equations, fields and errors. x, y: (N, C, D, H, W).

    >>> BatchNorm3d(affine=False).affine
    False
    """

    ranks: ClassVar[tuple[int, ...]] = (5,)


def input_gradient(
    h: Tensor,
    z: Tensor,
    centered: Tensor,
    inverse_std: Tensor,
    axis: int | tuple[int, ...],
    *,
    subtract_mean: bool,
) -> Tensor:
    """The gradient of x for the gradient h of z, where z = (x - mean) r over the values of some axes.

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
    axes = pixel_axes(grad_y)
    grad_weight = (grad_y * z).sum(axes) if "weight" in wanted else None
    return grad_weight, grad_y.sum(axes) if "bias" in wanted else None


def scale_and_shift(channels: int) -> dict[str, ParameterSpec | None]:
    """The parameters of y = weight z + bias, both (C,), which start at 1 and 0."""
    return {
        "weight": ParameterSpec((channels,), Constant(1.0)),
        "bias": ParameterSpec((channels,), Constant(0.0)),
    }


_AXES = {
    (2, 3): "N x C x L or N x C",
    (3,): "N x C x L",
    (4,): "N x C x H x W",
    (5,): "N x C x D x H x W",
}


def checked_channels(
    x: Spec, expected: int | None, *, field: str, ranks: tuple[int, ...] | None = None
) -> int:
    """Return the number of channels of an image.

    Args:
        x: the spec of the image, (N, C, *S).
        expected: the number of channels that the configuration states; None allows any.
        field: the name of the field that states it, for the error message.
        ranks: the numbers of axes that are allowed; None allows two and more.

    Raises:
        GraphError: x has another number of axes, or another number of channels.
    """
    if len(x.shape) not in ranks if ranks else len(x.shape) < 2:
        axes = _AXES[ranks] if ranks else "N x C x ..."
        raise GraphError(f"expected an input {axes}, got {x}")
    channels = x.shape[1]
    if expected not in (None, channels):
        raise GraphError(
            f"expected {expected} input channels, got {channels}. "
            f"Set {field}: {channels}, or leave it out."
        )
    return channels
