"""Operators: the layer for each call of a torch operator.

A row is a function with the operator's name. It takes the arguments of the call by the names of the operator's
schema, and returns the Node for it, the Operand that the call returns unchanged, or None if no layer computes
this call. An argument that a row does not name must have its default value, and be the same in train mode and
in eval mode; otherwise the row is not used. A row that names `eval_x` gets the argument `x` of eval mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from graphnet.bridges.trace import Operand, Operation, Size


@dataclass(frozen=True)
class Node:
    """A node of a model: the name of a layer, its fields, the tensors it reads, and its parameters.

    Args:
        layer: the registered name.
        inputs: the Operands that forward takes, in order.
        fields: the layer's fields.
        slots: the parameters and states of the module, by the layer's names; None for an absent one.

    >>> Node("relu", ()).fields
    {}
    """

    layer: str
    inputs: tuple[Operand, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, Operand | None] = field(default_factory=dict)


Row = Callable[..., Node | Operand | None]

ROWS: dict[str, Row] = {}
"""The full name of an operator, such as "aten.relu.default" -> its row."""


def row(*names: str) -> Callable[[Row], Row]:
    """Register a function as the row of these operators."""

    def register(function: Row) -> Row:
        for name in names:
            ROWS[name] = function
        return function

    return register


def find_node(operation: Operation, rows: Mapping[str, Row]) -> Node | Operand | None:
    """The node for an operation, the Operand that it returns unchanged, or None if no row fits."""
    function = rows.get(str(operation.target))
    if function is None:
        return None
    wanted = inspect.signature(function).parameters
    given: dict[str, Any] = {}
    for argument in operation.target._schema.arguments:
        name = argument.name
        value, in_eval = operation.arguments[name], operation.evaluation[name]
        if name in wanted:
            given[name] = value
        elif _listed(value) != _listed(argument.default_value):
            return None
        if f"eval_{name}" in wanted:
            given[f"eval_{name}"] = in_eval
        elif value != in_eval:
            return None
    found = function(**given)
    if isinstance(found, Node) and not all(s is None or s.is_slot for s in found.slots.values()):
        return None  # a weight that is computed, such as one with a weight norm
    return found


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def is_float(x: Any) -> bool:
    """Whether an argument is a tensor of floating point."""
    return isinstance(x, Operand) and x.dtype.is_floating_point


# -- convolutions and products -----------------------------------------------------------------------


@row("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(
    input: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Node | None:
    if len(input.shape) != 4:
        return None
    fields = {
        "out_channels": weight.shape[0],
        "kernel_size": weight.shape[2:],
        "stride": stride,
        "padding": padding if isinstance(padding, str) else pair(padding),
        "dilation": dilation,
        "groups": groups,
        "bias": bias is not None,
    }
    return Node("conv2d", (input,), fields, {"weight": weight, "bias": bias})


@row("aten.conv_transpose2d.input")
def conv_transpose2d(
    input: Operand,
    weight: Operand,
    bias: Operand | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Node | None:
    if len(input.shape) != 4:
        return None
    channels = weight.shape[1]
    assert isinstance(channels, int)
    fields = {
        "out_channels": channels * groups,
        "kernel_size": weight.shape[2:],
        "stride": pair(stride),
        "padding": pair(padding),
        "output_padding": pair(output_padding),
        "dilation": pair(dilation),
        "groups": groups,
        "bias": bias is not None,
    }
    return Node("transpose_conv2d", (input,), fields, {"weight": weight, "bias": bias})


@row("aten.linear.default")
def linear(input: Operand, weight: Operand, bias: Operand | None) -> Node | None:
    fields = {"out_features": weight.shape[0], "bias": bias is not None}
    return Node("linear", (input,), fields, {"weight": weight, "bias": bias})


def pair(value: Any) -> tuple[int, ...]:
    """One number as (height, width)."""
    sizes = (value,) if isinstance(value, int) else tuple(value)
    return sizes * 2 if len(sizes) == 1 else sizes


# -- norms -------------------------------------------------------------------------------------------


@row("aten.batch_norm.default")
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
    follows = training and not eval_training and running_mean is not None
    if not follows or len(input.shape) != 4 or (weight is None) != (bias is None):
        return None
    slots = {
        "weight": weight,
        "bias": bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    fields = {"eps": eps, "momentum": momentum, "affine": weight is not None}
    return Node("batch_norm2d", (input,), fields, slots)


@row("aten.group_norm.default")
def group_norm(
    input: Operand,
    num_groups: int,
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
    cudnn_enabled: bool,
) -> Node | None:
    if len(input.shape) != 4 or (weight is None) != (bias is None):
        return None
    fields = {"num_groups": num_groups, "eps": eps, "affine": weight is not None}
    return Node("group_norm", (input,), fields, {"weight": weight, "bias": bias})


# -- pooling and resampling --------------------------------------------------------------------------


@row("aten.max_pool2d.default")
def max_pool2d(
    self: Operand, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> Node | None:
    if len(self.shape) != 4:
        return None
    fields = {**_windows(kernel_size, stride, padding), "dilation": pair(dilation)}
    return Node("max_pool2d", (self,), fields)


@row("aten.avg_pool2d.default")
def avg_pool2d(
    self: Operand, kernel_size: Any, stride: Any, padding: Any, count_include_pad: bool
) -> Node | None:
    if len(self.shape) != 4:
        return None
    fields = {**_windows(kernel_size, stride, padding), "count_include_pad": count_include_pad}
    return Node("avg_pool2d", (self,), fields)


def _windows(kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    windows = {"kernel_size": pair(kernel_size), "padding": pair(padding)}
    return {**windows, "stride": pair(stride)} if stride else windows


@row("aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(self: Operand, output_size: Any) -> Node | None:
    if len(self.shape) != 4 or pair(output_size) != (1, 1):
        return None
    return Node("global_avg_pool", (self,))


@row("aten.mean.dim")
def mean(self: Operand, dim: Any, keepdim: bool) -> Node | None:
    axes = sorted(axis % len(self.shape) for axis in dim or ())
    if len(self.shape) != 4 or axes != [2, 3] or not keepdim or not is_float(self):
        return None
    return Node("global_avg_pool", (self,))


@row("aten.upsample_nearest2d.vec")
def upsample_nearest2d(input: Operand, output_size: Any, scale_factors: Any) -> Node | None:
    factors = scale_factors or _factors(input, output_size)
    if factors is None or any(factor != int(factor) for factor in factors):
        return None
    return Node("nearest_upsampling", (input,), {"scale_factor": tuple(map(int, factors))})


@row("aten.upsample_bilinear2d.vec")
def upsample_bilinear2d(
    input: Operand, output_size: Any, align_corners: bool, scale_factors: Any
) -> Node | None:
    factors = scale_factors or _factors(input, output_size)
    if factors is None:
        return None
    fields = {"scale_factor": tuple(map(float, factors)), "align_corners": align_corners}
    return Node("bilinear_upsampling", (input,), fields)


def _factors(x: Operand, size: Sequence[Size]) -> tuple[int, ...] | None:
    """How many times larger an image of this size is than x, if these are integers for every x."""
    ratios = [
        sympy.simplify(sympy.sympify(to) / of) for of, to in zip(x.shape[2:], size, strict=True)
    ]
    whole = all(ratio.is_Integer and ratio > 0 for ratio in ratios)
    return tuple(int(ratio) for ratio in ratios) if whole else None


@row("aten.pixel_shuffle.default")
def pixel_shuffle(self: Operand, upscale_factor: int) -> Node | None:
    return Node("pixel_shuffle", (self,), {"upscale_factor": upscale_factor})


@row("aten.pixel_unshuffle.default")
def pixel_unshuffle(self: Operand, downscale_factor: int) -> Node | None:
    return Node("pixel_unshuffle", (self,), {"downscale_factor": downscale_factor})


@row("aten.pad.default")
def pad(self: Operand, pad: Any, mode: str) -> Node | None:
    layer = {"reflect": "reflection_pad2d", "replicate": "replication_pad2d"}.get(mode)
    sides = all(isinstance(side, int) and side >= 0 for side in pad)
    if layer is None or len(self.shape) != 4 or len(pad) != 4 or not sides:
        return None
    return Node(layer, (self,), {"padding": tuple(pad)})


# -- activations -------------------------------------------------------------------------------------


def _pointwise(layer: str) -> Row:
    def make(self: Operand) -> Node | None:
        return Node(layer, (self,)) if is_float(self) else None

    return make


for _operator in ("relu", "sigmoid", "tanh", "silu", "relu6", "hardsigmoid", "hardswish"):
    row(f"aten.{_operator}.default")(_pointwise(_operator))


@row("aten.leaky_relu.default")
def leaky_relu(self: Operand, negative_slope: float) -> Node | None:
    if negative_slope < 0:
        return None
    return Node("leaky_relu", (self,), {"negative_slope": float(negative_slope)})


@row("aten.prelu.default")
def prelu(self: Operand, weight: Operand) -> Node | None:
    return Node("prelu", (self,), {"num_parameters": weight.shape[0]}, {"weight": weight})


@row("aten.gelu.default")
def gelu(self: Operand, approximate: str) -> Node | None:
    return Node("gelu", (self,), {"approximate": approximate})


@row("aten.softplus.default")
def softplus(self: Operand, beta: float, threshold: float) -> Node | None:
    if beta <= 0:
        return None
    return Node("softplus", (self,), {"beta": float(beta), "threshold": float(threshold)})


@row("aten.elu.default")
def elu(self: Operand, alpha: float) -> Node | None:
    return Node("elu", (self,), {"alpha": float(alpha)}) if alpha > 0 else None


@row("aten.hardtanh.default")
def hardtanh(self: Operand, min_val: float, max_val: float) -> Node | None:
    if not is_float(self):
        return None
    return Node("hardtanh", (self,), {"min_val": float(min_val), "max_val": float(max_val)})


# -- arithmetic --------------------------------------------------------------------------------------


@row("aten.add.Tensor")
def add(self: Operand, other: Any, alpha: float) -> Node | None:
    if not _alike(self, other) or alpha != 1 or self.shape != other.shape:
        return None
    return Node("add", (self, other))


@row("aten.sub.Tensor")
def sub(self: Operand, other: Any, alpha: float) -> Node | None:
    if not _alike(self, other) or alpha != 1 or len(self.shape) != len(other.shape):
        return None
    return Node("subtract", (self, other))


@row("aten.mul.Tensor")
def mul(self: Operand, other: Any) -> Node | None:
    if is_float(self) and isinstance(other, (int, float)):
        return Node("rescale", (self,), {"factor": float(other)})
    if not _alike(self, other) or len(self.shape) != len(other.shape):
        return None
    return Node("multiply", (self, other))


@row("aten.div.Tensor")
def div(self: Operand, other: Any) -> Node | None:
    if not is_float(self) or not isinstance(other, (int, float)) or other == 0:
        return None
    return Node("rescale", (self,), {"factor": 1 / other})


@row("aten.neg.default")
def neg(self: Operand) -> Node | None:
    return Node("rescale", (self,), {"factor": -1.0}) if is_float(self) else None


def _alike(x: Operand, other: Any) -> bool:
    """Whether both are tensors of one floating dtype."""
    return isinstance(other, Operand) and x.dtype == other.dtype and is_float(x)


# -- parts of tensors, and what changes nothing ------------------------------------------------------


@row("aten.cat.default")
def cat(tensors: tuple[Operand, ...], dim: int) -> Node | None:
    ranks = {len(x.shape) for x in tensors}
    if len(ranks) > 1 or not all(_alike(tensors[0], x) for x in tensors):
        return None
    return Node("concat", tensors, {"dim": dim})


@row("aten.chunk.default")
def chunk(self: Operand, chunks: int, dim: int) -> Node | None:
    size = self.shape[dim]
    if chunks != 2 or not isinstance(size, int) or size < 2 or not is_float(self):
        return None
    return Node("split", (self,), {"size": (size + 1) // 2, "dim": dim})


@row("aten.dropout.default")
def dropout(input: Operand, p: float, train: bool, eval_train: bool) -> Node | Operand | None:
    if eval_train:
        return None
    return Node("dropout", (input,), {"p": float(p)}) if train and p else input


@row("aten.slice.Tensor")
def slice(self: Operand, dim: int, start: int | None, end: Any, step: int) -> Operand | None:
    size = self.shape[dim]
    whole = end is None or end == size or (isinstance(end, int) and end >= _NO_END)
    return self if start in (None, 0) and step == 1 and whole else None


_NO_END = 2**63 - 1  # torch's number for the end of an axis


@row("aten.contiguous.default")
def contiguous(self: Operand, memory_format: Any) -> Operand:
    return self


@row("aten.clone.default")
def clone(self: Operand, memory_format: Any) -> Operand:
    return self


@row("aten.alias.default")
def alias(self: Operand) -> Operand:
    return self
