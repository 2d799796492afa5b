"""Rows: torch's operators, each with the layer of ours that computes it.

A row takes what the operator takes and returns the layer with its tensors. What the layer has no field for
is given to it all the same, so that graphnet itself refuses it in words; Refused is for what no field could
say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphnet.builtin import MSE, ReLU, Sigmoid
from graphnet.builtin.layers import adaptive, conv, pad, pool, transpose_conv, upsample
from graphnet.builtin.layers.activation import LeakyReLU, PReLU, Tanh
from graphnet.builtin.layers.axes import Flatten, Mean, Permute, Reshape
from graphnet.builtin.layers.dot_attention import Attention
from graphnet.builtin.layers.embedding import Embedding
from graphnet.builtin.layers.feature_norm import LayerNorm, RMSNorm
from graphnet.builtin.layers.group_norm import GroupNorm, InstanceNorm
from graphnet.builtin.layers.linear import Linear
from graphnet.builtin.layers.merge import Add, BroadcastAdd, Concat, Multiply, Subtract
from graphnet.builtin.layers.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.product import Matmul
from graphnet.builtin.layers.scale import AddScalar, Rescale
from graphnet.builtin.layers.smooth import GELU, SiLU, Softplus
from graphnet.builtin.layers.softmax import LogSoftmax, Softmax
from graphnet.builtin.layers.split import Slice, Split
from graphnet.builtin.losses.classes import NLL, BCEWithLogits, CrossEntropy
from graphnet.builtin.losses.pixel import L1, Huber
from graphnet.sdk import Layer
from tests.opinfo.judge import Refused, Row, Use


def elementwise(layer: type[Layer]) -> Row:
    """A row for an operator of one tensor, whose options are the layer's fields."""

    def row(x: Tensor, **options: Any) -> Use:
        return Use(layer(**options), [x])

    return row


def convolution(layer: type[Layer]) -> Row:
    def row(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Use:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        made = layer(
            out_channels=weight.shape[0],
            kernel_size=tuple(weight.shape[2:]),
            bias=bias is not None,
            **options,
        )
        return Use(made, [x], {"weight": weight, "bias": bias})

    return row


def transposed(layer: type[Layer]) -> Row:
    def row(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Use:
        made = layer(
            out_channels=weight.shape[1] * options.get("groups", 1),
            kernel_size=tuple(weight.shape[2:]),
            bias=bias is not None,
            **options,
        )
        return Use(made, [x], {"weight": weight, "bias": bias})

    return row


def pooling(layer: type[Layer]) -> Row:
    def row(x: Tensor, kernel_size: Any = None, stride: Any = None, **options: Any) -> Use:
        # an empty stride and a false return_indices are torch's ways to leave them out
        if options.get("return_indices") is False:
            del options["return_indices"]
        if options.get("divisor_override", 0) is None:
            del options["divisor_override"]
        stride = None if stride is None or stride == () or stride == [] else stride
        return Use(layer(kernel_size=kernel_size, stride=stride, **options), [x])

    return row


def averages(layer: type[Layer]) -> Row:
    """avg_pool: its arguments may come by position."""
    by_options = pooling(layer)

    def row(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Use:
        return by_options(
            x,
            kernel_size,
            stride,
            padding=padding[0]
            if isinstance(padding, (tuple, list)) and len(padding) == 1
            else padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )

    return row


def adaptive_pooling(layer: type[Layer]) -> Row:
    def row(x: Tensor, output_size: Any, return_indices: bool = False) -> Use:
        options = {"return_indices": True} if return_indices else {}
        return Use(layer(output_size=output_size, **options), [x])

    return row


def padding(layers: Mapping[int, type[Layer]]) -> Row:
    def row(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Use:
        axes = x.ndim - 2
        if axes not in layers:
            raise Refused(
                f"no layer pads an input of {x.ndim} axes; they take N x C x spatial axes"
            )
        missing = (0,) * (2 * axes - len(pad))
        options = {"value": float(value)} if value else {}
        return Use(layers[axes](padding=(*pad, *missing), **options), [x])

    return row


def resampling(layers: Mapping[int, type[Layer]], *, whole: bool = False) -> Row:
    """interpolate: a size that a factor gives exactly is that factor; `whole` factors are integers."""

    def row(
        x: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> Use:
        axes, options = x.ndim - 2, {}
        if axes not in layers:
            raise Refused(f"no layer resamples an input of {x.ndim} axes by {mode or 'this mode'}")
        if size is not None:
            sizes = [size] * axes if isinstance(size, int) else list(size)
            factors = [m / n for m, n in zip(sizes, x.shape[2:], strict=True)]
            if [math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True)] != sizes:
                raise Refused(
                    f"no scale_factor makes {sizes} of {list(x.shape[2:])}, and size is no field"
                )
        else:
            factors = (
                [scale_factor] * axes if isinstance(scale_factor, (int, float)) else scale_factor
            )
            if recompute_scale_factor:
                options["recompute_scale_factor"] = True
        if antialias:
            options["antialias"] = True
        if align_corners:
            options["align_corners"] = True
        if whole:
            factors = [int(f) if float(f).is_integer() else f for f in factors]
        return Use(layers[axes](scale_factor=list(factors), **options), [x])

    return row


def aligned(x: Tensor, size: Any = None, scale_factor: Any = None) -> Use:
    """upsample_bilinear: interpolate with align_corners."""
    row = resampling({2: upsample.BilinearUpsampling})
    return row(x, size, scale_factor, align_corners=True)


def affine(weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether a norm has both, or none; Refused for one alone."""
    if (weight is None) != (bias is None):
        raise Refused("a norm has weight and bias, or neither")
    return weight is not None


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Use:
    layers = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d, 5: BatchNorm3d}
    if x.ndim not in layers:
        raise Refused(f"no batch norm takes an input of {x.ndim} axes")
    if not training and running_mean is None:
        raise Refused("batch norm outside training takes running statistics")
    layer = layers[x.ndim](eps=eps, momentum=momentum, affine=affine(weight, bias))
    channels = x.shape[1]
    states = {
        "running_mean": x.new_zeros(channels) if running_mean is None else running_mean,
        "running_var": x.new_ones(channels) if running_var is None else running_var,
    }
    return Use(layer, [x], {"weight": weight, "bias": bias}, states, inference=not training)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Use:
    layer = GroupNorm(num_groups=num_groups, eps=eps, affine=affine(weight, bias))
    return Use(layer, [x], {"weight": weight, "bias": bias})


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Use:
    if running_mean is not None or not use_input_stats:
        raise Refused("instance_norm keeps no running statistics")
    layer = InstanceNorm(eps=eps, affine=affine(weight, bias))
    return Use(layer, [x], {"weight": weight, "bias": bias})


def prelu(x: Tensor, weight: Tensor) -> Use:
    if weight.ndim != 1:
        raise Refused("the slopes of prelu are one axis")
    return Use(PReLU(num_parameters=weight.numel()), [x], {"weight": weight})


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Use:
    if weight.ndim != 2:
        raise Refused("the weight of linear is a matrix")
    layer = Linear(out_features=weight.shape[0], bias=bias is not None)
    return Use(layer, [x], {"weight": weight, "bias": bias})


def loss(layer: type[Layer]) -> Row:
    """A row for a loss of two tensors; only the mean is a layer."""

    def row(prediction: Tensor, target: Tensor, reduction: str = "mean", **options: Any) -> Use:
        if reduction != "mean":
            options["reduction"] = reduction
        return Use(layer(**options), [prediction, target])

    return row


def add(x: Tensor, other: Any, alpha: float = 1) -> Use:
    if alpha != 1:
        raise Refused("sums have no alpha; see rescale")
    if isinstance(other, Tensor):
        return Use(Add() if x.shape == other.shape else BroadcastAdd(), [x, other])
    if isinstance(other, complex):
        raise Refused("add_scalar takes a real number")
    return Use(AddScalar(value=float(other)), [x])


def subtract(x: Tensor, other: Any, alpha: float = 1) -> Use:
    if alpha != 1:
        raise Refused("subtract has no alpha; see rescale")
    return Use(Subtract(), [x, other]) if isinstance(other, Tensor) else add(x, -other)


def matmul(x: Tensor, other: Tensor) -> Use:
    return Use(Matmul(), [x, other])


def multiply(x: Tensor, other: Any) -> Use:
    if isinstance(other, Tensor):
        return Use(Multiply(), [x, other])
    if isinstance(other, complex):
        raise Refused("rescale takes a real factor")
    return Use(Rescale(factor=float(other)), [x])


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int | None = None, **options: Any
) -> Use:
    options = {name: value for name, value in options.items() if value not in (None, False)}
    rows, columns = weight.shape
    layer = Embedding(
        num_embeddings=rows, embedding_dim=columns, padding_idx=padding_idx, **options
    )
    return Use(layer, [indices], {"weight": weight})


def softmax(layer: type[Layer]) -> Row:
    def row(x: Tensor, dim: int, dtype: Any = None) -> Use:
        return Use(layer(dim=dim, **({} if dtype in (None, x.dtype) else {"dtype": dtype})), [x])

    return row


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Use:
    if weight is None and bias is not None:
        raise Refused("layer_norm has no bias without a weight")
    layer = LayerNorm(
        normalized_shape=tuple(normalized_shape),
        eps=eps,
        elementwise_affine=weight is not None,
        bias=bias is not None,
    )
    return Use(layer, [x], {"weight": weight, "bias": bias})


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Use:
    shape = tuple(normalized_shape)
    layer = RMSNorm(normalized_shape=shape, eps=eps, elementwise_affine=weight is not None)
    return Use(layer, [x], {"weight": weight})


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Use:
    """Heads stand on an axis of their own in torch, and beside each other in the layer."""
    if attn_mask is not None or dropout_p or scale is not None or enable_gqa:
        raise Refused("attention has no mask but the causal one, no dropout, no scale and no gqa")
    if {x.ndim for x in (q, k, v)} not in ({3}, {4}):
        raise Refused("attention takes one batch axis")
    if q.ndim == 3:
        return Use(Attention(num_heads=1, causal=is_causal), [q, k, v])
    heads = q.shape[1]
    if {x.shape[1] for x in (k, v)} != {heads}:
        raise Refused("attention has as many heads of keys and values as of queries")
    return Use(
        Attention(num_heads=heads, causal=is_causal),
        [q, k, v],
        enter=lambda x: x.transpose(1, 2).flatten(2),
        leave=lambda y: y.unflatten(2, (heads, -1)).transpose(1, 2),
    )


def labels(layer: type[Layer]) -> Row:
    """A row for a loss of class labels: what is not torch's default is given to the layer."""

    def row(
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Use:
        options: dict[str, Any] = {"ignore_index": ignore_index}
        if weight is not None:
            options["weight"] = weight
        if reduction != "mean":
            options["reduction"] = reduction
        if label_smoothing:
            options["label_smoothing"] = label_smoothing
        return Use(layer(**options), [prediction, target])

    return row


def binary_cross_entropy(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Use:
    if pos_weight is not None and pos_weight.unique().numel() != 1:
        raise Refused("pos_weight is one number")
    options: dict[str, Any] = {} if weight is None else {"weight": weight}
    if pos_weight is not None:
        options["pos_weight"] = float(pos_weight.flatten()[0])
    if reduction != "mean":
        options["reduction"] = reduction
    return Use(BCEWithLogits(**options), [prediction, target])


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1.0, **options: Any) -> Use:
    if beta != 1:
        raise Refused("smooth_l1_loss is huber for beta 1 only")
    return loss(Huber)(prediction, target, **options)


def mean(x: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Use:
    if dim is None or dim == () or dim == []:
        dim = tuple(range(x.ndim))
    axes = dim if isinstance(dim, int) else tuple(dim)
    return Use(Mean(dim=axes, keepdim=keepdim, **options), [x])


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Use:
    return Use(Flatten(start_dim=start_dim, end_dim=end_dim), [x])


def reshape(x: Tensor, *shape: Any) -> Use:
    sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
    if not x.ndim or not sizes or sizes[0] != x.shape[0]:
        raise Refused("reshape leaves the first axis, the batch, as it is")
    return Use(Reshape(shape=tuple(sizes[1:])), [x])


def permute(x: Tensor, *dims: Any) -> Use:
    axes = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return Use(Permute(dims=tuple(axis % x.ndim for axis in axes)), [x])


def transpose(x: Tensor, dim0: int, dim1: int) -> Use:
    if not x.ndim:
        raise Refused("permute takes an input with axes")
    dims = list(range(x.ndim))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return Use(Permute(dims=tuple(dims)), [x])


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Use:
    return Use(Concat(dim=dim), list(tensors))


def split(x: Tensor, sizes: int | Sequence[int], dim: int = 0) -> Use:
    if isinstance(sizes, int):
        sizes = [len(part) for part in torch.arange(x.shape[dim]).split(sizes)]
    if len(sizes) != 2:
        raise Refused(f"split makes two parts, not {len(sizes)}")
    return Use(Split(size=sizes[0], dim=dim), [x])


def narrow(x: Tensor, dim: int, start: Any, length: int) -> Use:
    if isinstance(start, Tensor):
        raise Refused("slice has a fixed start")
    end = start + length if start >= 0 or start + length < 0 else None
    return Use(Slice(dim=dim, start=start, end=end), [x])


def getitem(x: Tensor, index: Any) -> Use:
    """x[index] for one slice with a step, behind whole axes."""
    given = index if isinstance(index, tuple) else (index,)
    parts = [(dim, part) for dim, part in enumerate(given) if part != slice(None)]
    if not all(isinstance(part, slice) for part in given) or len(parts) != 1:
        raise Refused("slice takes one slice of one axis, no index and no mask")
    ((dim, part),) = parts
    options = {"step": part.step} if part.step is not None else {}
    return Use(Slice(dim=dim, start=part.start or 0, end=part.stop, **options), [x])


def chunk(x: Tensor, chunks: int, dim: int = 0) -> Use:
    return split(x, [len(part) for part in torch.arange(x.shape[dim]).chunk(chunks)], dim)


_F = "nn.functional."
_NEAREST = {
    1: upsample.NearestUpsampling1d,
    2: upsample.NearestUpsampling,
    3: upsample.NearestUpsampling3d,
}
ROWS: dict[str, Row] = {
    f"{_F}conv1d": convolution(conv.Conv1d),
    f"{_F}conv2d": convolution(conv.Conv2d),
    f"{_F}conv3d": convolution(conv.Conv3d),
    f"{_F}conv_transpose1d": transposed(transpose_conv.TransposeConv1d),
    f"{_F}conv_transpose2d": transposed(transpose_conv.TransposeConv2d),
    f"{_F}conv_transpose3d": transposed(transpose_conv.TransposeConv3d),
    f"{_F}max_pool1d": pooling(pool.MaxPool1d),
    f"{_F}max_pool2d": pooling(pool.MaxPool2d),
    f"{_F}max_pool3d": pooling(pool.MaxPool3d),
    f"{_F}avg_pool1d": averages(pool.AvgPool1d),
    f"{_F}avg_pool2d": averages(pool.AvgPool2d),
    f"{_F}avg_pool3d": averages(pool.AvgPool3d),
    f"{_F}adaptive_avg_pool1d": adaptive_pooling(adaptive.AdaptiveAvgPool1d),
    f"{_F}adaptive_avg_pool2d": adaptive_pooling(adaptive.AdaptiveAvgPool2d),
    f"{_F}adaptive_avg_pool3d": adaptive_pooling(adaptive.AdaptiveAvgPool3d),
    f"{_F}adaptive_max_pool1d": adaptive_pooling(adaptive.AdaptiveMaxPool1d),
    f"{_F}adaptive_max_pool2d": adaptive_pooling(adaptive.AdaptiveMaxPool2d),
    f"{_F}adaptive_max_pool3d": adaptive_pooling(adaptive.AdaptiveMaxPool3d),
    f"{_F}batch_norm": batch_norm,
    f"{_F}group_norm": group_norm,
    f"{_F}instance_norm": instance_norm,
    f"{_F}pad.constant": padding(
        {1: pad.ConstantPad1d, 2: pad.ConstantPad2d, 3: pad.ConstantPad3d}
    ),
    f"{_F}pad.reflect": padding(
        {1: pad.ReflectionPad1d, 2: pad.ReflectionPad2d, 3: pad.ReflectionPad3d}
    ),
    f"{_F}pad.replicate": padding(
        {1: pad.ReplicationPad1d, 2: pad.ReplicationPad2d, 3: pad.ReplicationPad3d}
    ),
    f"{_F}pad.replicate_negative": padding(
        {1: pad.ReplicationPad1d, 2: pad.ReplicationPad2d, 3: pad.ReplicationPad3d}
    ),
    f"{_F}pad.circular": padding(
        {1: pad.CircularPad1d, 2: pad.CircularPad2d, 3: pad.CircularPad3d}
    ),
    f"{_F}interpolate.nearest": resampling(_NEAREST, whole=True),
    f"{_F}interpolate.linear": resampling({1: upsample.LinearUpsampling}),
    f"{_F}interpolate.bilinear": resampling({2: upsample.BilinearUpsampling}),
    f"{_F}interpolate.trilinear": resampling({3: upsample.TrilinearUpsampling}),
    f"{_F}upsample_nearest": resampling(_NEAREST, whole=True),
    f"{_F}upsample_bilinear": aligned,
    f"{_F}pixel_shuffle": elementwise(PixelShuffle),
    f"{_F}pixel_unshuffle": elementwise(PixelUnshuffle),
    f"{_F}linear": linear,
    f"{_F}relu": elementwise(ReLU),
    f"{_F}leaky_relu": elementwise(LeakyReLU),
    f"{_F}prelu": prelu,
    "sigmoid": elementwise(Sigmoid),
    "tanh": elementwise(Tanh),
    f"{_F}gelu": elementwise(GELU),
    f"{_F}silu": elementwise(SiLU),
    f"{_F}softplus": elementwise(Softplus),
    f"{_F}mse_loss": loss(MSE),
    f"{_F}l1_loss": loss(L1),
    f"{_F}huber_loss": loss(Huber),
    f"{_F}smooth_l1_loss": smooth_l1,
    f"{_F}embedding": embedding,
    "softmax": softmax(Softmax),
    "softmax.with_dtype": softmax(Softmax),
    "log_softmax": softmax(LogSoftmax),
    "log_softmax.with_dtype": softmax(LogSoftmax),
    f"{_F}layer_norm": layer_norm,
    f"{_F}rms_norm": rms_norm,
    f"{_F}scaled_dot_product_attention": attention,
    f"{_F}cross_entropy": labels(CrossEntropy),
    f"{_F}nll_loss": labels(NLL),
    f"{_F}binary_cross_entropy_with_logits": binary_cross_entropy,
    "mean": mean,
    "flatten": flatten,
    "reshape": reshape,
    "view": reshape,
    "permute": permute,
    "transpose": transpose,
    "add": add,
    "mul": multiply,
    "matmul": matmul,
    "bmm": matmul,
    "sub": subtract,
    "cat": concat,
    "split_with_sizes": split,
    "split": split,
    "split.list_args": split,
    "chunk": chunk,
    "narrow": narrow,
    "__getitem__": getitem,
}
"""Operator, with a dot and its variant if there is one -> the row."""
