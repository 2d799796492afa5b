"""batch_norm2d with its relu on images in channels_last: each pass over the image is one program."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin import BatchNorm2d
from graphnet.sdk import Gradients, Kernel, Site, only
from graphnet_triton.launch import WIDE, ceil_div, nhwc_like, register, runs_on, side, sums_of
from graphnet_triton.programs import norms
from graphnet_triton.shares import add_up, cut

_LAST = torch.channels_last
_BLOCK = 1024  # elements that a program takes at once

Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _batch_norm_relu_shapes(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Five:
    wide, channels = WIDE[x.dtype], x.shape[1]
    mean, inverse_std = (x.new_empty((channels,), dtype=wide) for _ in range(2))
    return (
        nhwc_like(x),
        mean,
        inverse_std,
        torch.empty_like(running_mean),
        torch.empty_like(running_var),
    )


def _batch_norm_relu(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> Five:
    made = _batch_norm_relu_shapes(x, weight, bias, running_mean, running_var, momentum, eps)
    y, mean, inverse_std, new_mean, new_var = made
    x, channels = x.contiguous(memory_format=_LAST), x.shape[1]
    pixels, wide = x.numel() // channels, side(channels)
    at_once = 4096 // wide
    count, steps = cut(pixels, at_once)
    shares = mean.new_empty((count, 2 * channels))
    norms.channel_moments[ceil_div(channels, wide), count](
        *(x, shares, pixels), C=channels, SUM=sums_of(x), STEPS=steps, BP=at_once, BC=wide
    )
    norms.batch_statistics[(ceil_div(channels, wide),)](
        *(shares, running_mean.contiguous(), running_var.contiguous()),
        *(mean, inverse_std, new_mean, new_var, pixels),
        C=channels,
        EPS=eps,
        MOMENTUM=momentum,
        COUNT=count,
        PER_SHARE=steps * at_once,
        BC=wide,
    )
    norms.batch_norm_relu[(ceil_div(x.numel(), _BLOCK),)](
        *(x, *(mean if p is None else p.contiguous() for p in (weight, bias))),
        *(mean, inverse_std, y, x.numel()),
        C=channels,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        SUM=sums_of(x),
        BLOCK=_BLOCK,
    )
    return made


def _batch_norm_relu_gradient_shapes(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> Three:
    return nhwc_like(x), torch.empty_like(mean), torch.empty_like(mean)


def _batch_norm_relu_gradient(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> Three:
    grad_x = nhwc_like(x)
    grad, x, y = (image.contiguous(memory_format=_LAST) for image in (grad, x, y))
    channels = x.shape[1]
    pixels, wide = x.numel() // channels, side(channels)
    at_once = 4096 // wide
    count, steps = cut(pixels, at_once)
    shares = mean.new_empty((count, 2 * channels))
    norms.batch_norm_sums[ceil_div(channels, wide), count](
        *(grad, x, y, mean, inverse_std, shares, pixels),
        C=channels,
        SUM=sums_of(x),
        STEPS=steps,
        BP=at_once,
        BC=wide,
    )
    of_weight, of_bias = torch.empty_like(mean), torch.empty_like(mean)
    add_up(shares, of_weight, of_bias)
    norms.batch_norm_gradient[(ceil_div(x.numel(), _BLOCK),)](
        *(grad, x, y, mean if weight is None else weight.contiguous(), mean, inverse_std),
        *(of_weight, of_bias, grad_x, x.numel(), pixels),
        C=channels,
        WEIGHT=weight is not None,
        SUM=sums_of(x),
        BLOCK=_BLOCK,
    )
    return grad_x, of_weight, of_bias


batch_norm_relu = register(
    "batch_norm_relu(Tensor x, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, "
    "float momentum, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _batch_norm_relu,
    _batch_norm_relu_shapes,
)
batch_norm_relu_gradient = register(
    "batch_norm_relu_gradient(Tensor grad, Tensor x, Tensor y, Tensor? weight, Tensor mean, "
    "Tensor inverse_std) -> (Tensor, Tensor, Tensor)",
    _batch_norm_relu_gradient,
    _batch_norm_relu_gradient_shapes,
)


class TritonBatchNorm2dReLU(Kernel):
    """batch_norm2d and relu: the pass that sums the norm's gradient also applies the mask of relu.

    It does not match channels with one value or none.
    """

    replaces = "relu(batch_norm2d(x, weight, bias, running_mean, running_var))"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"x": _LAST}
    momentum: float
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, BatchNorm2d)
        if x is None or x.numel <= x.shape[1] or not runs_on(site.device, x):
            return None
        return cls(momentum=layer.momentum, eps=layer.eps)

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> Five:
        made: Five = batch_norm_relu(
            x, weight, bias, running_mean, running_var, self.momentum, self.eps
        )
        return made

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> Gradients:
        made = batch_norm_relu_gradient(grad_y, x, y, weight, mean, inverse_std)
        return only(wanted, made)

    def inference(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> Tensor:
        normed: Tensor = torch.ops.aten._native_batch_norm_legit_functional.default(
            x, weight, bias, running_mean, running_var, False, self.momentum, self.eps
        )[0]
        return normed.relu_()


KERNELS: dict[str, type[Kernel]] = {"triton/batch_norm2d_relu": TritonBatchNorm2dReLU}
