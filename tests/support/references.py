"""References: what built-in layers compute, by torch's functions or the plain equations, for their samples.

The kit checks that a layer is right in itself: that its backward is the derivative of its forward, and more.
Only an expected value can tell that it is the layer that was meant. Each reference gets forward's tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.layers.dropout import Dropout
from graphnet.sdk import Layer, Registry
from graphnet.testing import Sample

Reference = Callable[..., Any]
IMAGE = (2, 4, 6, 6)


def _conv2d(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, groups)

    return run


def _transpose_conv2d(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv_transpose2d(
            x,
            weight,
            bias,
            layer.stride,
            layer.padding,
            layer.output_padding,
            layer.groups,
            layer.dilation,
        )

    return run


def _max_pool2d(layer: Any) -> Reference:
    return lambda x: F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.dilation)


def _avg_pool2d(layer: Any) -> Reference:
    return lambda x: F.avg_pool2d(
        x,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        count_include_pad=layer.count_include_pad,
    )


def _bilinear(layer: Any) -> Reference:
    def run(x: Tensor) -> Tensor:
        factors = layer.scale_factor
        scale = tuple(map(float, factors)) if isinstance(factors, tuple) else float(factors)
        return F.interpolate(
            x,
            scale_factor=scale,
            mode="bilinear",
            align_corners=layer.align_corners,
            recompute_scale_factor=False,
        )

    return run


def _batch_norm2d(layer: Any) -> Reference:
    def run(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor
    ) -> tuple[Tensor, ...]:
        n = x.numel() // x.shape[1]
        if n == 1:  # torch refuses it
            y = torch.zeros_like(x) if bias is None else bias.view(-1, 1, 1).expand_as(x)
            found = layer.momentum * (x.flatten() - mean)
            return y, mean + found, var - layer.momentum * var
        y = F.batch_norm(x, mean, var, weight, bias, True, layer.momentum, layer.eps)
        return y, mean, var  # the given tensors are copies, and torch has written to them

    return run


def _layer_norm2d(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        rows = x.movedim(1, -1)
        size = rows.shape[-1:]
        if layer.subtract_mean:
            return F.layer_norm(rows, size, weight, bias, layer.eps).movedim(-1, 1)
        centered = rows - rows.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        y = rows / (variance + layer.eps).sqrt()
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).movedim(-1, 1)

    return run


def _transposed_attention(layer: Any) -> Reference:
    def run(qkv: Tensor, temperature: Tensor) -> Tensor:
        n, channels, h, w = qkv.shape
        q, k, v = qkv.reshape(n, 3, layer.num_heads, -1, h * w).unbind(1)
        scores = temperature * (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2))
        return (scores.softmax(-1) @ v).reshape(n, channels // 3, h, w)

    return run


def _channel_attention(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        gate = F.conv2d(x.mean((2, 3), keepdim=True), weight.view(*weight.shape[:2], 1, 1), bias)
        return x * gate

    return run


def _similarity(x: Tensor, y: Tensor, layer: Any) -> tuple[Tensor, Tensor]:
    """The luminance and the structure at each position (Wang et al. 2004)."""
    place = torch.arange(layer.window_size, dtype=torch.float64) - (layer.window_size - 1) / 2
    bell = torch.exp(-(place**2) / (2 * layer.sigma**2))
    window = torch.outer(bell, bell)
    window = (window / window.sum()).expand(x.shape[1], 1, -1, -1)

    def mean(z: Tensor) -> Tensor:
        return F.conv2d(z, window, groups=x.shape[1])

    c1, c2 = (0.01 * layer.data_range) ** 2, (0.03 * layer.data_range) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return luminance, (2 * vxy + c2) / (vx + vy + c2)


def _ssim(layer: Any) -> Reference:
    def run(x: Tensor, y: Tensor) -> Tensor:
        luminance, structure = _similarity(x, y, layer)
        return 1 - (luminance * structure).mean()

    return run


def _ms_ssim(layer: Any) -> Reference:
    def run(x: Tensor, y: Tensor) -> Tensor:
        total = torch.ones(x.shape[:2], dtype=x.dtype)
        for scale, weight in enumerate(layer.weights):
            luminance, structure = _similarity(x, y, layer)
            last = scale == len(layer.weights) - 1
            score = (luminance * structure if last else structure).mean((2, 3))
            total = total * score.clamp_min(1e-6) ** weight
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return 1 - total.mean()

    return run


def _split(layer: Any) -> Reference:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        first = x.shape[layer.dim] // 2 if layer.size is None else layer.size
        return x.split([first, x.shape[layer.dim] - first], layer.dim)

    return run


def _padded(mode: str) -> Callable[[Any], Reference]:
    return lambda layer: lambda x: F.pad(x, layer.padding, mode)


REFERENCES: Mapping[str, Callable[[Any], Reference]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _conv2d,
    "transpose_conv2d": _transpose_conv2d,
    "nearest_upsampling": lambda layer: (
        lambda x: x.repeat_interleave(layer.scale_factor[0], 2).repeat_interleave(
            layer.scale_factor[1], 3
        )
    ),
    "bilinear_upsampling": _bilinear,
    "pixel_shuffle": lambda layer: lambda x: F.pixel_shuffle(x, layer.upscale_factor),
    "pixel_unshuffle": lambda layer: lambda x: F.pixel_unshuffle(x, layer.downscale_factor),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool": lambda layer: lambda x: F.adaptive_avg_pool2d(x, 1),
    "reflection_pad2d": _padded("reflect"),
    "replication_pad2d": _padded("replicate"),
    "batch_norm2d": _batch_norm2d,
    "group_norm": lambda layer: (
        lambda x, weight=None, bias=None: F.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    ),
    "layer_norm2d": _layer_norm2d,
    "simplified_channel_attention": _channel_attention,
    "transposed_attention": _transposed_attention,
    "linear": lambda layer: F.linear,
    "relu": lambda layer: F.relu,
    "leaky_relu": lambda layer: lambda x: F.leaky_relu(x, layer.negative_slope),
    "prelu": lambda layer: F.prelu,
    "sigmoid": lambda layer: torch.sigmoid,
    "tanh": lambda layer: torch.tanh,
    "gelu": lambda layer: lambda x: F.gelu(x, approximate=layer.approximate),
    "silu": lambda layer: F.silu,
    "softplus": lambda layer: lambda x: F.softplus(x, layer.beta, layer.threshold),
    "add": lambda layer: lambda *xs: sum(xs[1:], xs[0]),
    "multiply": lambda layer: torch.mul,
    "subtract": lambda layer: torch.sub,
    "concat": lambda layer: lambda *xs: torch.cat(xs, layer.dim),
    "split": _split,
    "simple_gate": lambda layer: lambda x: torch.mul(*x.chunk(2, 1)),
    "rescale": lambda layer: lambda x: x * layer.factor,
    "layer_scale": lambda layer: lambda x, weight: torch.einsum("nc...,c->nc...", x, weight),
    "dropout": lambda layer: lambda x: x,  # of p = 0; else it is random
    "mse": lambda layer: F.mse_loss,
    "l1": lambda layer: F.l1_loss,
    "huber": lambda layer: lambda x, y: F.huber_loss(x, y, delta=layer.delta),
    "charbonnier": lambda layer: lambda x, y: ((x - y) ** 2 + layer.eps**2).sqrt().mean(),
    "psnr": lambda layer: (
        lambda x, y: 10 * (((x - y) ** 2).flatten(1).mean(1) + layer.eps).log10().mean()
    ),
    "ssim": _ssim,
    "ms_ssim": _ms_ssim,
    "masked_mse": lambda layer: lambda x, y, mask: (mask * (x - y) ** 2).sum() / mask.sum(),
}
"""The name of a layer -> a function that returns the reference of one of its configurations."""


def with_expected(name: str, samples: Sequence[Sample], registry: Registry) -> list[Sample]:
    """The samples with what they expect; one more where the layer has a reference and no sample."""
    given = list(samples)
    if name not in REFERENCES:
        return given
    if not given:
        losses = name in registry.losses
        layer = (registry.losses if losses else registry.layers)[name].value
        given = [Sample(layer(), [IMAGE] * (1 + losses))]
    found = []
    for sample in given:
        assert isinstance(sample.layer, Layer)
        known = not sample.raises and not (isinstance(sample.layer, Dropout) and sample.layer.p)
        expected = REFERENCES[name](sample.layer) if known else None
        found.append(replace(sample, expected=expected))
    return found


def all_with_expected(
    samples: Mapping[str, Sequence[Sample]], registry: Registry
) -> dict[str, list[Sample]]:
    """All samples by name, with what they expect."""
    names = dict.fromkeys(itertools.chain(samples, REFERENCES))
    return {name: with_expected(name, samples.get(name, ()), registry) for name in names}
