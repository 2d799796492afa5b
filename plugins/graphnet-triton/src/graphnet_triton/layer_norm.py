"""layer_norm2d on images in channels_last: each pass over the image is one program."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin import LayerNorm2d
from graphnet.sdk import Gradients, Kernel, Site, only
from graphnet_triton.launch import WIDE, ceil_div, nhwc_like, register, runs_on, side, sums_of
from graphnet_triton.programs import norms
from graphnet_triton.shares import add_up, cut

_LAST = torch.channels_last
_MOST_CHANNELS = 1024  # of a pixel, which one program holds

Three = tuple[Tensor, Tensor, Tensor]


def _layer_norm_shapes(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, subtract_mean: bool
) -> Three:
    n, _, h, w = x.shape
    mean, inverse_std = (x.new_empty((n, 1, h, w), dtype=WIDE[x.dtype]) for _ in range(2))
    return nhwc_like(x), mean, inverse_std


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
    return nhwc_like(x), x.new_empty((channels,), dtype=wide), x.new_empty((channels,), dtype=wide)


def _layer_norm_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse_std: Tensor,
    subtract_mean: bool,
) -> Three:
    grad_x = nhwc_like(x)
    grad, x = grad.contiguous(memory_format=_LAST), x.contiguous(memory_format=_LAST)
    channels, pixels = x.shape[1], mean.numel()
    at_once = _pixels_at_once(channels)
    count, steps = cut(pixels, at_once)
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
    grad_weight, grad_bias = shares.new_empty(channels), shares.new_empty(channels)
    add_up(shares, grad_weight, grad_bias)
    return grad_x, grad_weight, grad_bias


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
    """layer_norm2d, with and without its mean; it does not match empty images, or more than 1024 channels."""

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
        fits = runs_on(site.device, x)
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
        made = layer_norm_gradient(grad_y, x, weight, mean, inverse_std, self.subtract_mean)
        return only(wanted, made)


KERNELS: dict[str, type[Kernel]] = {"triton/layer_norm2d": TritonLayerNorm2d}
