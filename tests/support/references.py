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
from graphnet.testing.samples import samples_for
from graphnet.testing.vary import varied

Reference = Callable[..., Any]


def _functional(name: str, layer: Any) -> Callable[..., Tensor]:
    """torch's function for the number of axes of a layer, such as conv3d."""
    found: Callable[..., Tensor] = getattr(F, f"{name}{layer.axes}d")
    return found


def _convolution(layer: Any) -> Reference:
    """torch's module of the same fields: it pads as `padding_mode` says."""

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        module = getattr(torch.nn, f"Conv{layer.axes}d")(
            x.shape[1],
            weight.shape[0],
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            x.shape[1] // weight.shape[1],
            bias is not None,
            layer.padding_mode,
            device="meta",
        )
        return _called(module, x, weight=weight, bias=bias)

    return run


def _called(module: torch.nn.Module, *inputs: Tensor, **parameters: Tensor | None) -> Any:
    given = {name: value for name, value in parameters.items() if value is not None}
    shapes = {name: value.shape for name, value in given.items()}
    assert shapes == {name: value.shape for name, value in module.named_parameters()}
    return torch.func.functional_call(module, given, inputs)


def _prelu(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor) -> Tensor:
        channels = x.shape[1] if x.ndim > 1 else 1
        count = channels if layer.num_parameters is None else layer.num_parameters
        return _called(torch.nn.PReLU(count, device="meta"), x, weight=weight)

    return run


def _transpose_convolution(layer: Any) -> Reference:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _functional("conv_transpose", layer)(
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


def _max_pool(layer: Any) -> Reference:
    return lambda x: _functional("max_pool", layer)(
        x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    )


def _avg_pool(layer: Any) -> Reference:
    return lambda x: _functional("avg_pool", layer)(
        x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad
    )


def _adaptive(kind: str) -> Callable[[Any], Reference]:
    return lambda layer: lambda x: _functional(f"adaptive_{kind}_pool", layer)(x, layer.output_size)


def _nearest(layer: Any) -> Reference:
    def run(x: Tensor) -> Tensor:
        for axis, factor in enumerate(layer.scale_factor):
            x = x.repeat_interleave(factor, axis + 2)
        return x

    return run


def _linear_upsampling(layer: Any) -> Reference:
    def run(x: Tensor) -> Tensor:
        return F.interpolate(
            x,
            scale_factor=tuple(map(float, layer.scale_factor)),
            mode={1: "linear", 2: "bilinear", 3: "trilinear"}[layer.axes],
            align_corners=layer.align_corners,
            recompute_scale_factor=False,
        )

    return run


def _batch_norm(layer: Any) -> Reference:
    def run(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor
    ) -> tuple[Tensor, ...]:
        n = x.numel() // x.shape[1]
        if n == 1:  # torch refuses it
            y = torch.zeros_like(x)
            y = y if bias is None else y + bias.view(-1, *(1,) * (x.ndim - 2))
            found = layer.momentum * (x.flatten() - mean)
            return y, mean + found, var - layer.momentum * var
        y = F.batch_norm(x, mean, var, weight, bias, True, layer.momentum, layer.eps)
        return y, mean, var  # the given tensors are copies, and torch has written to them

    return run


def _channel_norm(layer: Any) -> Reference:
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


def _last_axes(layer: Any, x: Tensor) -> list[int]:
    return list(x.shape[-1:] if layer.normalized_shape is None else layer.normalized_shape)


def _layer_norm(layer: Any) -> Reference:
    return lambda x, weight, bias: F.layer_norm(x, _last_axes(layer, x), weight, bias, layer.eps)


def _rms_norm(layer: Any) -> Reference:
    return lambda x, weight: F.rms_norm(x, _last_axes(layer, x), weight, layer.eps)


def _attention(layer: Any) -> Reference:
    def run(*qkv: Tensor) -> Tensor:
        q, k, v = (x.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for x in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=layer.causal)
        return y.transpose(1, 2).flatten(2)

    return run


def _recurrent(kind: type[torch.nn.RNNBase]) -> Callable[[Any], Reference]:
    def make(layer: Any) -> Reference:
        def run(x: Tensor, *parameters: Tensor | None) -> Tensor:
            module = kind(
                x.shape[2], layer.hidden_size, bias=layer.bias, batch_first=True, device="meta"
            )
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            y: Tensor = _called(module, x, **dict(zip(names, parameters, strict=True)))[0]
            return y

        return run

    return make


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


def _cross_entropy(layer: Any) -> Reference:
    return lambda x, target: F.cross_entropy(
        x, target, ignore_index=layer.ignore_index, label_smoothing=layer.label_smoothing
    )


def _binary_cross_entropy(layer: Any) -> Reference:
    def run(x: Tensor, target: Tensor) -> Tensor:
        weight = torch.tensor(layer.pos_weight, dtype=x.dtype)
        return F.binary_cross_entropy_with_logits(x, target, pos_weight=weight)

    return run


_OVER_AXES: Mapping[str, Callable[[Any], Reference]] = {
    "conv{}d": _convolution,
    "depthwise_conv{}d": _convolution,
    "transpose_conv{}d": _transpose_convolution,
    "max_pool{}d": _max_pool,
    "avg_pool{}d": _avg_pool,
    "adaptive_avg_pool{}d": _adaptive("avg"),
    "adaptive_max_pool{}d": _adaptive("max"),
    "constant_pad{}d": lambda layer: lambda x: F.pad(x, layer.padding, value=layer.value),
    "reflection_pad{}d": _padded("reflect"),
    "replication_pad{}d": _padded("replicate"),
    "circular_pad{}d": _padded("circular"),
    "batch_norm{}d": _batch_norm,
    "layer_norm{}d": _channel_norm,
}
REFERENCES: Mapping[str, Callable[[Any], Reference]] = {
    **{name.format(n): make for name, make in _OVER_AXES.items() for n in (1, 2, 3)},
    "nearest_upsampling": _nearest,
    "nearest_upsampling1d": _nearest,
    "nearest_upsampling3d": _nearest,
    "linear_upsampling": _linear_upsampling,
    "bilinear_upsampling": _linear_upsampling,
    "trilinear_upsampling": _linear_upsampling,
    "pixel_shuffle": lambda layer: lambda x: F.pixel_shuffle(x, layer.upscale_factor),
    "pixel_unshuffle": lambda layer: lambda x: F.pixel_unshuffle(x, layer.downscale_factor),
    "global_avg_pool": lambda layer: lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "instance_norm": lambda layer: (
        lambda x, weight, bias: F.group_norm(x, x.shape[1], weight, bias, layer.eps)
    ),
    "group_norm": lambda layer: (
        lambda x, weight=None, bias=None: F.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    ),
    "simplified_channel_attention": _channel_attention,
    "transposed_attention": _transposed_attention,
    "linear": lambda layer: F.linear,
    "relu": lambda layer: F.relu,
    "leaky_relu": lambda layer: lambda x: F.leaky_relu(x, layer.negative_slope),
    "prelu": _prelu,
    "sigmoid": lambda layer: torch.sigmoid,
    "tanh": lambda layer: torch.tanh,
    "gelu": lambda layer: lambda x: F.gelu(x, approximate=layer.approximate),
    "silu": lambda layer: F.silu,
    "softplus": lambda layer: lambda x: F.softplus(x, layer.beta, layer.threshold),
    "elu": lambda layer: lambda x: F.elu(x, layer.alpha),
    "hardtanh": lambda layer: lambda x: F.hardtanh(x, layer.min_val, layer.max_val),
    "relu6": lambda layer: F.relu6,
    "hardsigmoid": lambda layer: lambda x: F.relu6(x + 3) / 6,  # torch's slope is float32's 1 / 6
    "hardswish": lambda layer: lambda x: x * F.relu6(x + 3) / 6,
    "trained_tensor": lambda layer: lambda x, value: value,
    "fixed_tensor": lambda layer: lambda x, value: value,
    "add": lambda layer: lambda *xs: sum(xs[1:], xs[0]),
    "broadcast_add": lambda layer: torch.add,
    "add_scalar": lambda layer: lambda x: x + layer.value,
    "matmul": lambda layer: torch.matmul,
    "multiply": lambda layer: torch.mul,
    "subtract": lambda layer: torch.sub,
    "concat": lambda layer: lambda *xs: torch.cat(xs, layer.dim),
    "split": _split,
    "slice": lambda layer: (
        lambda x: x.movedim(layer.dim, 0)[layer.start : layer.end : layer.step].movedim(
            0, layer.dim
        )
    ),
    "simple_gate": lambda layer: lambda x: torch.mul(*x.chunk(2, 1)),
    "rescale": lambda layer: lambda x: x * layer.factor,
    "layer_scale": lambda layer: lambda x, weight: torch.einsum("nc...,c->nc...", x, weight),
    "dropout": lambda layer: lambda x: x,  # of p = 0; else it is random
    "embedding": lambda layer: F.embedding,
    "position_embedding": lambda layer: lambda x, weight: x + weight[: x.shape[1]],
    "attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "softmax": lambda layer: lambda x: F.softmax(x, layer.dim),
    "log_softmax": lambda layer: lambda x: F.log_softmax(x, layer.dim),
    "lstm": _recurrent(torch.nn.LSTM),
    "gru": _recurrent(torch.nn.GRU),
    "flatten": lambda layer: lambda x: x.flatten(layer.start_dim, layer.end_dim),
    "reshape": lambda layer: lambda x: x.reshape(len(x), *layer.shape),
    "permute": lambda layer: lambda x: x.permute(layer.dims),
    "mean": lambda layer: lambda x: x.mean(layer.dim, layer.keepdim),
    "cross_entropy": _cross_entropy,
    "nll": lambda layer: lambda x, t: F.nll_loss(x, t, ignore_index=layer.ignore_index),
    "binary_cross_entropy_with_logits": _binary_cross_entropy,
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


_UNIT = {"weight": 1.0, "bias": 0.0}
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


def starts(name: str, layer: Any) -> dict[str, float]:
    """The numbers from which torch's parameters and buffers of this layer start, where they do not draw."""
    if name.startswith(_NORMS):
        states = {"running_mean": 0.0, "running_var": 1.0} if name.startswith("batch") else {}
        return {n: _UNIT[n] for n in layer.signature.tensors if n in _UNIT} | states
    if name in ("prelu", "layer_scale"):
        return {"weight": layer.init}
    if name in ("trained_tensor", "fixed_tensor"):
        return {"value": layer.init}
    return {"temperature": 1.0} if name == "transposed_attention" else {}


def with_expected(name: str, samples: Sequence[Sample], registry: Registry) -> list[Sample]:
    """The samples with what they expect; without samples, those that the kit would take.

    Samples in which the kit has varied the fields are added, so that each field has an expected effect.
    """
    given = list(samples)
    entry = {**registry.layers, **registry.losses}.get(name)
    if entry is None:
        return given  # a kernel is compared with its layer
    cls = entry.value
    reference = REFERENCES[registry.name_of(cls)]
    given = given or list(samples_for(cls, registry))
    given += varied(cls, [one for one in given if not one.raises]).samples
    found = []
    for sample in given:
        assert isinstance(sample.layer, Layer)
        known = not sample.raises and not (isinstance(sample.layer, Dropout) and sample.layer.p)
        expected = reference(sample.layer) if known else None
        own = {} if sample.raises else starts(registry.name_of(cls), sample.layer)
        found.append(replace(sample, expected=expected, starts=own))
    return found


def all_with_expected(
    samples: Mapping[str, Sequence[Sample]], registry: Registry
) -> dict[str, list[Sample]]:
    """All samples by name, with what they expect."""
    names = dict.fromkeys(itertools.chain(samples, REFERENCES))
    return {name: with_expected(name, samples.get(name, ()), registry) for name in names}
