"""Rows of the operators on images of one, two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import sympy

from graphnet.builtin.operators.table import row_of
from graphnet.sdk import Node, Operand, Row, Size, is_float, sizes

ROWS: dict[str, Row] = {}
_row = partial(row_of, ROWS)


def _axes(x: Operand) -> int | None:
    """The number of spatial axes of a batch of images; None for what is none."""
    return len(x.shape) - 2 if len(x.shape) in (3, 4, 5) and is_float(x) else None


def _convolution(
    axes: int,
    input: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Node | None:
    channels = weight.shape[1]
    if _axes(input) != axes or not isinstance(channels, int):
        return None
    fields = {
        "in_channels": channels * groups,
        "out_channels": weight.shape[0],
        "kernel_size": weight.shape[2:],
        "stride": sizes(stride, axes),
        "padding": padding if isinstance(padding, str) else sizes(padding, axes),
        "dilation": sizes(dilation, axes),
        "groups": groups,
        "bias": bias is not None,
    }
    return Node(f"conv{axes}d", (input,), fields, {"weight": weight, "bias": bias})


def _transposed(
    axes: int,
    input: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Node | None:
    channels = weight.shape[1]
    if _axes(input) != axes or not isinstance(channels, int):
        return None
    fields = {
        "in_channels": weight.shape[0],
        "out_channels": channels * groups,
        "kernel_size": weight.shape[2:],
        "stride": sizes(stride, axes),
        "padding": sizes(padding, axes),
        "output_padding": sizes(output_padding, axes),
        "dilation": sizes(dilation, axes),
        "groups": groups,
        "bias": bias is not None,
    }
    return Node(f"transpose_conv{axes}d", (input,), fields, {"weight": weight, "bias": bias})


def _max_pool(
    axes: int,
    self: Operand,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Node | None:
    if _axes(self) != axes:
        return None
    windows = _windows(axes, kernel_size, stride, padding)
    fields = {**windows, "dilation": sizes(dilation, axes), "ceil_mode": ceil_mode}
    return Node(f"max_pool{axes}d", (self,), fields)


def _avg_pool(
    axes: int,
    self: Operand,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Node | None:
    if _axes(self) != axes:
        return None
    windows = _windows(axes, kernel_size, stride, padding)
    fields = {**windows, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    return Node(f"avg_pool{axes}d", (self,), fields)


def _windows(axes: int, kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    windows = {"kernel_size": sizes(kernel_size, axes), "padding": sizes(padding, axes)}
    return {**windows, "stride": sizes(stride, axes)} if stride else windows


def _adaptive_avg_pool(axes: int, self: Operand, output_size: Any) -> Node | None:
    size = sizes(output_size, axes)
    if _axes(self) != axes or not all(isinstance(n, int) for n in size):
        return None
    if set(size) == {1}:
        return Node("global_avg_pool", (self,))
    return Node(f"adaptive_avg_pool{axes}d", (self,), {"output_size": size})


def _nearest(
    layer: str, axes: int, input: Operand, output_size: Any, scale_factors: Any
) -> Node | None:
    factors = scale_factors or _factors(input, output_size)
    if factors is None or any(factor != int(factor) for factor in factors):
        return None
    return Node(layer, (input,), {"scale_factor": tuple(map(int, factors))})


def _linear(
    layer: str, axes: int, input: Operand, output_size: Any, align_corners: bool, scale_factors: Any
) -> Node | None:
    factors = scale_factors or _factors(input, output_size)
    if factors is None:
        return None
    fields = {"scale_factor": tuple(map(float, factors)), "align_corners": align_corners}
    return Node(layer, (input,), fields)


def _factors(x: Operand, size: Sequence[Size]) -> tuple[int, ...] | None:
    """How many times larger an image of this size is than x, if these are integers for every x."""
    ratios = [
        sympy.simplify(sympy.sympify(to) / of) for of, to in zip(x.shape[2:], size, strict=True)
    ]
    whole = all(ratio.is_Integer and ratio > 0 for ratio in ratios)
    return tuple(int(ratio) for ratio in ratios) if whole else None


for _n in (1, 2, 3):
    _row(f"aten.conv{_n}d.default", f"aten.conv{_n}d.padding")(partial(_convolution, _n))
    _transposed_name = f"aten.conv_transpose{_n}d.{'default' if _n == 1 else 'input'}"
    _row(_transposed_name)(partial(_transposed, _n))
    _row(f"aten.max_pool{_n}d.default")(partial(_max_pool, _n))
    _row(f"aten.avg_pool{_n}d.default")(partial(_avg_pool, _n))
    _row(f"aten.adaptive_avg_pool{_n}d.default")(partial(_adaptive_avg_pool, _n))
for _n, _suffix, _kind in ((1, "1d", "linear"), (2, "", "bilinear"), (3, "3d", "trilinear")):
    _row(f"aten.upsample_nearest{_n}d.vec")(partial(_nearest, f"nearest_upsampling{_suffix}", _n))
    _row(f"aten.upsample_{_kind}{_n}d.vec")(partial(_linear, f"{_kind}_upsampling", _n))


@_row("aten.batch_norm.default")
def batch_norm(
    input: Operand,
    weight: Operand | None,
    bias: Operand | None,
    running_mean: Operand | None,
    running_var: Operand | None,
    training: bool,
    eval_training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Node | None:
    axes = {2: 1, 3: 1, 4: 2, 5: 3}.get(len(input.shape))
    follows = training and not eval_training and running_mean is not None
    if not follows or axes is None or (weight is None) != (bias is None):
        return None
    slots = {
        "weight": weight,
        "bias": bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    fields = {"eps": eps, "momentum": momentum, "affine": weight is not None}
    return Node(f"batch_norm{axes}d", (input,), fields, slots)


@_row("aten.group_norm.default")
def group_norm(
    input: Operand,
    num_groups: int,
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
    cudnn_enabled: bool,
) -> Node | None:
    if _axes(input) is None or (weight is None) != (bias is None):
        return None
    fields = {"num_groups": num_groups, "eps": eps, "affine": weight is not None}
    return Node("group_norm", (input,), fields, {"weight": weight, "bias": bias})


@_row("aten.instance_norm.default")
def instance_norm(
    input: Operand,
    weight: Operand | None,
    bias: Operand | None,
    running_mean: Operand | None,
    running_var: Operand | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Node | None:
    plain = use_input_stats and running_mean is None
    if _axes(input) is None or not plain or (weight is None) != (bias is None):
        return None
    fields = {"eps": eps, "affine": weight is not None}
    return Node("instance_norm", (input,), fields, {"weight": weight, "bias": bias})


@_row("aten.pixel_shuffle.default")
def pixel_shuffle(self: Operand, upscale_factor: int) -> Node | None:
    fields = {"upscale_factor": upscale_factor}
    return Node("pixel_shuffle", (self,), fields) if _axes(self) == 2 else None


@_row("aten.pixel_unshuffle.default")
def pixel_unshuffle(self: Operand, downscale_factor: int) -> Node | None:
    fields = {"downscale_factor": downscale_factor}
    return Node("pixel_unshuffle", (self,), fields) if _axes(self) == 2 else None


_PADS = {
    "constant": "constant_pad",
    "reflect": "reflection_pad",
    "replicate": "replication_pad",
    "circular": "circular_pad",
}


@_row("aten.pad.default")
def pad(self: Operand, pad: Any, mode: str, value: float | None) -> Node | None:
    axes = len(pad) // 2
    whole = all(isinstance(side, int) and side >= 0 for side in pad)
    if _axes(self) != axes or not whole or (value and mode != "constant"):
        return None
    fields: dict[str, Any] = {"padding": tuple(pad)}
    if mode == "constant":
        fields["value"] = float(value or 0.0)
    return Node(f"{_PADS[mode]}{axes}d", (self,), fields)
