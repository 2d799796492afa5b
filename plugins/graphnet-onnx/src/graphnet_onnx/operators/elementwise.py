"""Readers of elementwise operators, and of those that combine tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from graphnet_onnx.operators.reading import Node, OperatorReader, Unreadable


def _layer(name: str) -> OperatorReader:
    """The reader of an operator without attributes that is one layer."""
    return lambda node: node.add(name)


def leaky_relu(node: Node) -> str:
    """LeakyRelu -> leaky_relu."""
    slope = node.attributes.get("alpha", 0.01)
    if slope < 0:
        raise Unreadable(f"expected a slope of at least 0, found {slope}")
    return node.add("leaky_relu", negative_slope=float(slope))


def prelu(node: Node) -> str:
    """PRelu -> prelu, for one slope or one for each channel."""
    slopes = node.constant(1)
    return node.add(
        "prelu", weights={"weight": _of_channels(node, slopes)}, num_parameters=slopes.numel()
    )


def gelu(node: Node) -> str:
    """Gelu -> gelu."""
    return node.add("gelu", approximate=node.attributes.get("approximate", "none"))


def swish(node: Node) -> str:
    """Swish -> silu."""
    node.only(alpha=1.0)
    return node.add("silu")


def clip(node: Node) -> str:
    """Clip from 0 on -> relu."""
    lower = node.constant(1).item() if node.has(1) else node.attributes.get("min", -math.inf)
    upper = node.constant(2).item() if node.has(2) else node.attributes.get("max", math.inf)
    if (lower, upper) != (0, math.inf):
        raise Unreadable(f"only the bounds 0 and infinity have a layer, found {lower} and {upper}")
    return node.add("relu")


def _along(layer: str) -> OperatorReader:
    """The reader of Softmax and LogSoftmax."""

    def read(node: Node) -> str:
        modern = node.reading.opset >= 13
        axis = node.attributes.get("axis", -1 if modern else 1)
        axes = len(node.shape())
        if not modern and axis % axes != axes - 1:
            raise Unreadable("before opset 13 it normalizes all axes from `axis` on at once")
        return node.add(layer, dim=axis)

    return read


def identity(node: Node) -> str:
    """Identity -> nothing."""
    return node.value()


def dropout(node: Node) -> str:
    """Dropout in inference -> nothing."""
    training = node.optional(2)
    if training is not None and bool(training):
        raise Unreadable("training_mode has no layer: the random numbers would differ")
    node.unused(1)
    return node.value()


def add(node: Node) -> str:
    """Add -> add or broadcast_add; one number -> add_scalar.

    Another constant is the bias of the matrix product before it, or of a depthwise_conv of 1s.
    """
    for index in (0, 1):
        if node.is_constant(index):
            return _shifted(node, node.constant(index), 1 - index)
    if node.shape(0) == node.shape(1):
        return node.add("add", *node.values())
    return node.add("broadcast_add", *node.values())


def _shifted(node: Node, bias: Tensor, index: int) -> str:
    """Add a constant to a computed input."""
    reference = node.value(index)
    if not bias.is_floating_point():
        raise Unreadable("a constant is added to integers, which no layer does")
    if any(one["id"] == reference and "linear" in one for one in node.reading.layers):
        return _bias(node, bias, index)
    if bias.numel() == 1 and bias.ndim <= len(node.shape(index)):
        return node.add("add_scalar", reference, value=float(bias))
    axes = node.spatial(index)
    channels = node.size(1, index)
    if bias.ndim > axes + 2:
        raise Unreadable(f"the constant of {bias.ndim} axes gives {axes + 2} axes more of them")
    return node.add(
        f"depthwise_conv{axes}d",
        reference,
        weights={
            "weight": torch.ones((channels, 1, *(1,) * axes), dtype=bias.dtype),
            "bias": _of_channels(node, bias, index).reshape(-1),
        },
        kernel_size=1,
    )


def summed(node: Node) -> str:
    """Sum -> add."""
    shapes = {node.shape(i) for i in range(node.count)}
    if len(shapes) > 1:
        raise Unreadable(
            f"add takes equal shapes, found {', '.join(map(str, sorted(shapes, key=str)))}"
        )
    return node.add("add", *node.values())


def _bias(node: Node, bias: Tensor, index: int) -> str:
    """Put a constant into the linear layer that computes the other input."""
    reference = node.value(index)
    layer = next((one for one in node.reading.layers if one["id"] == reference), {})
    names = [name for name, one in node.reading.references.items() if one == reference]
    only_here = len(names) == 1 and node.reading.uses[names[0]] == 1
    fields = layer.get("linear")
    row = bias.numel() == bias.shape[-1:].numel() and bias.ndim <= len(node.shape(index))
    if fields is None or fields["bias"] or not only_here or not row:
        raise Unreadable("the product to which a constant is added has a bias, or other readers")
    if bias.numel() not in (1, fields["out_features"]):
        raise Unreadable(f"expected {fields['out_features']} numbers to add, found {bias.numel()}")
    fields["bias"] = True
    whole = bias.reshape(-1).expand(fields["out_features"])
    node.reading.weights[f"{reference}.bias"] = whole.clone()
    return reference


def multiply(node: Node) -> str:
    """Mul -> multiply; by one number -> rescale; by one number for each channel -> layer_scale."""
    for index in (0, 1):
        if node.is_constant(index):
            return _scaled(node, node.constant(index), 1 - index)
    return node.add("multiply", *node.values())


def divide(node: Node) -> str:
    """Div by a constant -> as Mul by its inverse."""
    divisor = node.constant(1)
    if not divisor.is_floating_point():
        raise Unreadable("integers are divided, which no layer does")
    return _scaled(node, 1 / divisor, 0)


def _scaled(node: Node, factor: Tensor, index: int) -> str:
    reference = node.value(index)
    if not factor.is_floating_point():
        raise Unreadable("integers are multiplied with a constant, which no layer does")
    axes = len(node.shape(index))
    if factor.numel() == 1 and factor.ndim <= axes:
        return node.add("rescale", reference, factor=float(factor))
    weight = _of_channels(node, factor, index)
    return node.add("layer_scale", reference, weights={"weight": weight})


def subtract(node: Node) -> str:
    """Sub -> subtract; a constant is added with the other sign."""
    if node.is_constant(1) and node.constant(1).is_floating_point():
        return _shifted(node, -node.constant(1), 0)
    return node.add("subtract", *node.values())


def negative(node: Node) -> str:
    """Neg -> rescale by -1."""
    return node.add("rescale", factor=-1.0)


def _of_channels(node: Node, weight: Tensor, index: int = 0) -> Tensor:
    """A constant that is one number, or one for each channel of an input, as (C,)."""
    shape = node.shape(index)
    aligned = (1,) * (len(shape) - weight.ndim) + tuple(weight.shape)
    others = [size for axis, size in enumerate(aligned) if axis != 1]
    if len(aligned) != len(shape) or any(size != 1 for size in others):
        raise Unreadable(
            f"expected one number, or one for each channel of {shape}, found {tuple(weight.shape)}"
        )
    if aligned[1:2] not in ((1,), ()) and shape[1] != aligned[1]:
        raise Unreadable(f"expected {shape[1]} channels, found {aligned[1]}")
    return weight.reshape(-1).to(weight.dtype if weight.is_floating_point() else torch.float32)


READERS: Mapping[str, OperatorReader] = {
    "Relu": _layer("relu"),
    "Sigmoid": _layer("sigmoid"),
    "Tanh": _layer("tanh"),
    "Softplus": _layer("softplus"),
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Gelu": gelu,
    "Swish": swish,
    "Clip": clip,
    "Softmax": _along("softmax"),
    "LogSoftmax": _along("log_softmax"),
    "Identity": identity,
    "Dropout": dropout,
    "Add": add,
    "Sum": summed,
    "Mul": multiply,
    "Div": divide,
    "Sub": subtract,
    "Neg": negative,
}
