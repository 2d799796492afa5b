"""Readers of norms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable


def batch_norm(node: Node) -> str:
    """BatchNormalization in inference -> batch_norm1d to 3d."""
    node.only(training_mode=0, spatial=1)
    axes = len(node.shape()) - 2
    if axes not in (0, 1, 2, 3):
        raise Unreadable(f"batch_norm takes up to three spatial axes, found {axes}")
    ports = ("weight", "bias", "running_mean", "running_var")
    return node.add(
        f"batch_norm{max(axes, 1)}d",
        weights={port: node.constant(i) for i, port in enumerate(ports, start=1)},
        eps=float(node.attributes.get("epsilon", 1e-5)),
    )


def instance_norm(node: Node) -> str:
    """InstanceNormalization -> instance_norm."""
    return node.add(
        "instance_norm",
        weights={"weight": node.constant(1), "bias": node.constant(2)},
        eps=float(node.attributes.get("epsilon", 1e-5)),
        affine=True,
    )


def group_norm(node: Node) -> str:
    """GroupNormalization -> group_norm."""
    weight, bias = node.constant(1), node.constant(2)
    groups = node.attributes["num_groups"]
    if weight.numel() != node.size(1):  # before opset 21: one number for each group
        repeat = node.size(1) // groups
        weight, bias = weight.repeat_interleave(repeat), bias.repeat_interleave(repeat)
    return node.add(
        "group_norm",
        weights={"weight": weight, "bias": bias},
        num_groups=groups,
        eps=float(node.attributes.get("epsilon", 1e-5)),
    )


def layer_norm(node: Node) -> str:
    """LayerNormalization -> layer_norm."""
    node.unused(1, 2)
    node.only(stash_type=1)
    shape, weight = _scale(node)
    bias = node.optional(2)
    if bias is not None:
        bias = bias.expand(shape)
    return node.add(
        "layer_norm",
        weights={"weight": weight, "bias": bias},
        normalized_shape=shape,
        eps=float(node.attributes.get("epsilon", 1e-5)),
        bias=bias is not None,
    )


def rms_norm(node: Node) -> str:
    """RMSNormalization -> rms_norm."""
    node.only(stash_type=1)
    shape, weight = _scale(node)
    return node.add(
        "rms_norm",
        weights={"weight": weight},
        normalized_shape=shape,
        eps=float(node.attributes.get("epsilon", 1e-5)),
    )


def _scale(node: Node) -> tuple[list[int], Tensor]:
    """The sizes of the axes that are normalized, and the weight in this shape."""
    weight, axes = node.constant(1), len(node.shape())
    first = node.attributes.get("axis", -1) % axes
    shape = [node.size(axis) for axis in range(first, axes)]
    return shape, weight.expand(shape)


READERS: Mapping[str, OperatorReader] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
}
