"""Batch norm over several processes: one layer computes statistics, another normalizes by those of all."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from graphnet.builtin.layers.channels import per_channel, pixel_axes, values_per_channel
from graphnet.sdk import Layer


class ChannelStatistics(Layer):
    """The mean and the variance of each channel, over the n values of all images and pixels.

    mean = sum x / n;  var = sum (x - mean)^2 / n.
    With m and v the gradients of mean and var: dx = m / n + 2 v (x - mean) / n.
    x: (N, C, *S), float; y: (2, C), the means and the variances.
    """

    def forward(self, x: Tensor) -> Tensor:
        n = max(values_per_channel(x), 1)
        mean = x.sum(pixel_axes(x)) / n
        squares = (x - per_channel(mean, x)).square().sum(pixel_axes(x))
        return torch.stack((mean, squares / n))

    def backward(self, grad_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
        n = max(values_per_channel(x), 1)
        centered = x - per_channel(y[0], x)
        return per_channel(grad_y[0] / n, x) + per_channel(2.0 * grad_y[1] / n, x) * centered


class NormByStatistics(Layer):
    """Normalizes each channel to mean 0 and variance 1 over the batches of all processes.

    With mean_i and var_i the statistics of P processes, all of n values:
        mean = sum mean_i / P;  var = sum (var_i + (mean_i - mean)^2) / P;
        z = (x - mean) / sqrt(var + eps);  y = weight z + bias.
    With g the gradient of y and h = weight g:
        dweight = sum g z;  dbias = sum g;  dx = h / sqrt(var + eps);
        a = - sum h / sqrt(var + eps);  b = - sum (h z) / (2 (var + eps));
        dvar_i = b / P;  dmean_i = (a + 2 b (mean_i - mean)) / P.
    The running mean and variance are those of `BatchNorm`, for P n values.

    x, y: (N, C, *S), float; statistics: (P, 2, C); weight, bias: (C,), or none; running_mean and
    running_var: (C,).
    """

    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    eps: float
    momentum: float

    def forward(
        self,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _whole(statistics)
        y = (x - per_channel(mean, x)) * per_channel((var + self.eps).rsqrt(), x)
        if weight is not None and bias is not None:
            y = y * per_channel(weight, x) + per_channel(bias, x)
        n = len(statistics) * values_per_channel(x)
        unbiased = var * (n / max(n - 1, 1))
        next_mean = running_mean + self.momentum * (mean - running_mean)
        next_var = running_var + self.momentum * (unbiased - running_var)
        return y, next_mean, next_var

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor | None,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        mean, var = _whole(statistics)
        inverse_std = (var + self.eps).rsqrt()
        z = (x - per_channel(mean, x)) * per_channel(inverse_std, x)
        grad_bias = grad_y.sum(pixel_axes(x))
        grad_weight = (grad_y * z).sum(pixel_axes(x))
        scale = inverse_std if weight is None else inverse_std * weight
        of_mean, of_var = -grad_bias * scale, -0.5 * grad_weight * scale * inverse_std
        processes = len(statistics)
        of_means = (of_mean + 2.0 * of_var * (statistics[:, 0] - mean)) / processes
        grad_statistics = torch.stack((of_means, (of_var / processes).expand_as(of_means)), dim=1)
        grad_x = per_channel(scale, x) * grad_y if "x" in wanted else None
        if weight is None:
            return grad_x, grad_statistics, None, None
        return grad_x, grad_statistics, grad_weight, grad_bias


def _whole(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of all processes together: each (C,)."""
    mean = statistics[:, 0].mean(0)
    var = (statistics[:, 1] + (statistics[:, 0] - mean).square()).mean(0)
    return mean, var
