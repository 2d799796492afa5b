"""Norms on images in channels_last: layer_norm2d, and batch_norm2d with its relu.

Each pass over the image is one program; sums over pixels are taken in shares, which are added in order, so
that the same inputs give the same bits.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.layer import Kernel, Site
from graphnet.layers.layer_norm import LayerNorm2d
from graphnet.layers.norm import BatchNorm2d
from graphnet_triton.launch import WIDE, ceil_div, register, runs_on, side, sums_of
from graphnet_triton.programs import norms, products

_LAST = torch.channels_last
_BLOCK = 1024  # elements that a program takes at once
_PROGRAMS = 264  # two for each multiprocessor of a large GPU
_MOST_CHANNELS = 1024  # of a pixel, which one program holds

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=_LAST)


def _shared(pixels: int, at_once: int) -> tuple[int, int]:
    """How many shares the pixels are cut into, and how many steps of `at_once` pixels each takes."""
    blocks = ceil_div(pixels, at_once)
    steps = ceil_div(blocks, _PROGRAMS)
    return ceil_div(blocks, steps), steps


def _added(shares: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of shares (S, 2 C): the first C, and the others."""
    count, both = shares.shape
    first, second = shares.new_empty(both // 2), shares.new_empty(both // 2)
    products.add_shares[(ceil_div(both, _BLOCK),)](
        *(shares, first, second), COUNT=count, WEIGHT=both // 2, ALL=both, BLOCK=_BLOCK
    )
    return first, second


# ---- layer_norm2d


def _layer_norm_shapes(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, subtract_mean: bool
) -> Three:
    n, _, h, w = x.shape
    mean, inverse_std = (x.new_empty((n, 1, h, w), dtype=WIDE[x.dtype]) for _ in range(2))
    return _like(x), mean, inverse_std


def _layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, subtract_mean: bool
) -> Three:
    y, mean, inverse_std = _layer_norm_shapes(x, weight, bias, eps, subtract_mean)
    x, pixels, channels = x.contiguous(memory_format=_LAST), mean.numel(), x.shape[1]
    at_once = _pixels_at_once(channels)
    norms.layer_norm[(ceil_div(pixels, at_once),)](
        *(x, *(x if p is None else p.contiguous() for p in (weight, bias))),
        *(y, mean, inverse_std, pixels),
        C=channels,
        EPS=eps,
        SUBTRACT=subtract_mean,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        SUM=sums_of(x),
        BP=at_once,
        BC=side(channels, most=_MOST_CHANNELS),
    )
    return y, mean, inverse_std


def _layer_norm_gradient_shapes(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    subtract_mean: bool,
) -> Three:
    wide, channels = WIDE[x.dtype], x.shape[1]
    return _like(x), x.new_empty((channels,), dtype=wide), x.new_empty((channels,), dtype=wide)


def _layer_norm_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    subtract_mean: bool,
) -> Three:
    grad_x = _like(x)
    grad, x = grad.contiguous(memory_format=_LAST), x.contiguous(memory_format=_LAST)
    channels, pixels = x.shape[1], mean.numel()
    at_once = _pixels_at_once(channels)
    count, steps = _shared(pixels, at_once)
    shares = x.new_empty((count, 2 * channels), dtype=WIDE[x.dtype])
    norms.layer_norm_gradient[(count,)](
        *(grad, x, x if weight is None else weight.contiguous()),
        *(mean.contiguous(), inverse_std.contiguous(), grad_x, shares, pixels),
        C=channels,
        SUBTRACT=subtract_mean,
        WEIGHT=weight is not None,
        SUM=sums_of(x),
        STEPS=steps,
        BP=at_once,
        BC=side(channels, most=_MOST_CHANNELS),
    )
    return grad_x, *_added(shares)


def _pixels_at_once(channels: int) -> int:
    return max(1, 4096 // side(channels, most=_MOST_CHANNELS))


layer_norm = register(
    "layer_norm(Tensor x, Tensor? weight, Tensor? bias, float eps, bool subtract_mean) "
    "-> (Tensor, Tensor, Tensor)",
    _layer_norm,
    _layer_norm_shapes,
)
layer_norm_gradient = register(
    "layer_norm_gradient(Tensor grad, Tensor x, Tensor? weight, Tensor mean, Tensor inverse_std, "
    "bool subtract_mean) -> (Tensor, Tensor, Tensor)",
    _layer_norm_gradient,
    _layer_norm_gradient_shapes,
)


class TritonLayerNorm2d(Kernel):
    """layer_norm2d, with and without its mean; leaves empty images, and more than 1024 channels, alone."""

    replaces = "layer_norm2d(x, weight, bias)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"x": _LAST}
    eps: float
    subtract_mean: bool

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, LayerNorm2d)
        if x is None or not x.numel or x.shape[1] > _MOST_CHANNELS:
            return None
        fits = runs_on(site.device, x.dtype)
        return cls(eps=layer.eps, subtract_mean=layer.subtract_mean) if fits else None

    def forward(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Three:
        made: Three = layer_norm(x, weight, bias, self.eps, self.subtract_mean)
        return made

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> Gradients:
        grad_x, grad_weight, grad_bias = layer_norm_gradient(
            grad_y, x, weight, mean, inverse_std, self.subtract_mean
        )
        return (
            grad_x if "x" in wanted else None,
            grad_weight if "weight" in wanted else None,
            grad_bias if "bias" in wanted else None,
        )


# ---- relu(batch_norm2d)


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
        _like(x),
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
    count, steps = _shared(pixels, at_once)
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
    return _like(x), torch.empty_like(mean), torch.empty_like(mean)


def _batch_norm_relu_gradient(
    grad: Tensor, x: Tensor, y: Tensor, weight: Tensor | None, mean: Tensor, inverse_std: Tensor
) -> Three:
    grad_x = _like(x)
    grad, x, y = (image.contiguous(memory_format=_LAST) for image in (grad, x, y))
    channels = x.shape[1]
    pixels, wide = x.numel() // channels, side(channels)
    at_once = 4096 // wide
    count, steps = _shared(pixels, at_once)
    shares = mean.new_empty((count, 2 * channels))
    norms.batch_norm_sums[ceil_div(channels, wide), count](
        *(grad, x, y, mean, inverse_std, shares, pixels),
        C=channels,
        SUM=sums_of(x),
        STEPS=steps,
        BP=at_once,
        BC=wide,
    )
    of_weight, of_bias = _added(shares)
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
    """batch_norm2d and relu: the mask of relu goes with the sums of the norm's gradient.

    Leaves channels of one value or none alone.
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
        if x is None or x.numel <= x.shape[1] or not runs_on(site.device, x.dtype):
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
        grad_x, grad_weight, grad_bias = batch_norm_relu_gradient(
            grad_y, x, y, weight, mean, inverse_std
        )
        return (
            grad_x if "x" in wanted else None,
            grad_weight if "weight" in wanted else None,
            grad_bias if "bias" in wanted else None,
        )

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


KERNELS: dict[str, type[Kernel]] = {
    "triton/batch_norm2d_relu": TritonBatchNorm2dReLU,
    "triton/layer_norm2d": TritonLayerNorm2d,
}
