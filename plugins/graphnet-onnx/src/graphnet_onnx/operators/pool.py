"""Readers of pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet_onnx.operators.convolution import pads_for, sides_of
from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable


def max_pool(node: Node) -> str:
    """MaxPool -> max_pool1d to 3d."""
    node.unused(1)
    axes, fields, pads = _windows(node)
    if pads[:axes] != pads[axes:]:
        raise Unreadable(f"expected equal pads before and after each axis, found {pads}")
    return node.add(f"max_pool{axes}d", padding=pads[:axes], **fields)


def average_pool(node: Node) -> str:
    """AveragePool -> avg_pool1d to 3d, after a constant_pad if the padding of two sides differs."""
    axes, fields, pads = _windows(node)
    if fields.pop("dilation") != [1] * axes:
        raise Unreadable("avg_pool has no dilation")
    counts = bool(node.attributes.get("count_include_pad", 0))
    image, padding = node.value(), pads[:axes]
    if pads[:axes] != pads[axes:]:
        if not counts or fields["ceil_mode"]:
            raise Unreadable(f"expected equal pads before and after each axis, found {pads}")
        image, padding = node.add(f"constant_pad{axes}d", padding=sides_of(pads)), [0] * axes
    return node.add(f"avg_pool{axes}d", image, padding=padding, count_include_pad=counts, **fields)


def _windows(node: Node) -> tuple[int, dict[str, Any], list[int]]:
    """The number of axes, the fields of both poolings, and the pads."""
    axes = node.spatial()
    kernel = list(node.attributes["kernel_shape"])
    strides = list(node.attributes.get("strides", [1] * axes))
    dilations = list(node.attributes.get("dilations", [1] * axes))
    pads = pads_for(node, kernel, strides, dilations)
    if any(2 * pad > k for pad, k in zip(pads, (*kernel, *kernel), strict=True)):
        raise Unreadable(f"expected pads of at most half the kernel {kernel}, found {pads}")
    ceil_mode = bool(node.attributes.get("ceil_mode", 0))
    fields = {"kernel_size": kernel, "stride": strides, "dilation": dilations}
    return axes, {**fields, "ceil_mode": ceil_mode}, pads


def global_average_pool(node: Node) -> str:
    """GlobalAveragePool -> global_avg_pool."""
    return node.add("global_avg_pool")


def global_max_pool(node: Node) -> str:
    """GlobalMaxPool -> adaptive_max_pool with one window."""
    return node.add(f"adaptive_max_pool{node.spatial()}d", output_size=1)


READERS: Mapping[str, OperatorReader] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
}
