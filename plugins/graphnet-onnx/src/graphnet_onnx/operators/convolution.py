"""Readers of convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable


def sides_of(pads: Sequence[int]) -> list[int]:
    """An operator's pads in torch's order: left, right, top, bottom, front, back.

    >>> sides_of([3, 1, 4, 2])
    [1, 2, 3, 4]
    """
    half = len(pads) // 2
    pairs = zip(reversed(pads[:half]), reversed(pads[half:]), strict=True)
    return [side for pair in pairs for side in pair]


def pads_for(
    node: Node, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """The pads of a node, those of auto_pad too. Raises Unreadable if they depend on a free size."""
    axes = len(kernel)
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return list(node.attributes.get("pads", [0] * (2 * axes)))
    if auto == "VALID":
        return [0] * (2 * axes)
    before, after = [], []
    for axis in range(axes):
        span = dilations[axis] * (kernel[axis] - 1) + 1
        if strides[axis] == 1:
            total = span - 1
        else:
            n = node.size(2 + axis)
            total = max(0, (-(-n // strides[axis]) - 1) * strides[axis] + span - n)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return [*before, *after]


def conv(node: Node) -> str:
    """Conv -> conv1d to 3d, after a constant_pad if the padding before and after the image differs."""
    weight, bias = node.constant(1), node.optional(2)
    axes = node.spatial()
    kernel = list(weight.shape[2:])
    strides = node.attributes.get("strides", [1] * axes)
    dilations = node.attributes.get("dilations", [1] * axes)
    pads = pads_for(node, kernel, strides, dilations)
    image, padding = node.value(), pads[:axes]
    if pads[:axes] != pads[axes:]:
        image = node.add(f"constant_pad{axes}d", padding=sides_of(pads))
        padding = [0] * axes
    return node.add(
        f"conv{axes}d",
        image,
        weights={"weight": weight, "bias": bias},
        out_channels=weight.shape[0],
        kernel_size=kernel,
        stride=list(strides),
        padding=padding,
        dilation=list(dilations),
        groups=node.attributes.get("group", 1),
        bias=bias is not None,
    )


def conv_transpose(node: Node) -> str:
    """ConvTranspose -> transpose_conv1d to 3d."""
    weight, bias = node.constant(1), node.optional(2)
    axes, groups = node.spatial(), node.attributes.get("group", 1)
    node.only(auto_pad="NOTSET", output_shape=None)
    pads = node.attributes.get("pads", [0] * (2 * axes))
    if list(pads[:axes]) != list(pads[axes:]):
        raise Unreadable(f"expected equal pads before and after each axis, found {list(pads)}")
    return node.add(
        f"transpose_conv{axes}d",
        weights={"weight": weight, "bias": bias},
        out_channels=weight.shape[1] * groups,
        kernel_size=list(weight.shape[2:]),
        stride=list(node.attributes.get("strides", [1] * axes)),
        padding=list(pads[:axes]),
        output_padding=list(node.attributes.get("output_padding", [0] * axes)),
        dilation=list(node.attributes.get("dilations", [1] * axes)),
        groups=groups,
        bias=bias is not None,
    )


def gemm(node: Node) -> str:
    """Gemm -> linear."""
    node.only(transA=0)
    weight, bias = node.constant(1), node.optional(2)
    if not node.attributes.get("transB", 0):
        weight = weight.t()
    weight = weight * node.attributes.get("alpha", 1.0)
    if bias is not None:
        if bias.numel() not in (1, weight.shape[0]) or bias.numel() != bias.shape[-1:].numel():
            raise Unreadable(
                f"expected {weight.shape[0]} numbers to add, found {tuple(bias.shape)}"
            )
        bias = bias.reshape(-1).expand(weight.shape[0]) * node.attributes.get("beta", 1.0)
    return _linear(node, weight, bias)


def matmul(node: Node) -> str:
    """MatMul with a constant matrix -> linear; of two computed tensors -> matmul."""
    if not node.is_constant(0) and not node.is_constant(1):
        if min(len(node.shape(0)), len(node.shape(1))) < 2:
            raise Unreadable(f"expected matrices, found {node.shape(0)} and {node.shape(1)}")
        return node.add("matmul", *node.values())
    weight = node.constant(1)
    if weight.ndim != 2:
        raise Unreadable(f"expected a matrix as second input, found {tuple(weight.shape)}")
    return _linear(node, weight.t(), None)


def _linear(node: Node, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
    if not weight.is_floating_point():
        raise Unreadable("it multiplies integers, which no layer does")
    return node.add(
        "linear",
        weights={"weight": weight.contiguous(), "bias": bias},
        out_features=weight.shape[0],
        bias=bias is not None,
    )


READERS: Mapping[str, OperatorReader] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
}
