"""Writers of norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphnet_onnx.writing import Input, Nodes, OnnxWriter, Port


class WriteBatchNorm(OnnxWriter):
    """BatchNormalization with the running statistics."""

    def write(
        self,
        layer: Any,
        to: Nodes,
        x: Port,
        weight: Port | None,
        bias: Port | None,
        running_mean: Port,
        running_var: Port,
    ) -> str:
        scale, shift = _affine(to, x.size(1), weight, bias)
        return to.add(
            "BatchNormalization", x, scale, shift, running_mean, running_var, epsilon=layer.eps
        )


class WriteGroupNorm(OnnxWriter):
    """InstanceNormalization of the groups as channels, then scale and shift of the channels."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port | None, bias: Port | None) -> str:
        groups = to.reshape(x, (0, layer.num_groups, -1))
        scale, shift = _affine(to, layer.num_groups, None, None)
        z = to.add("InstanceNormalization", groups, scale, shift, epsilon=layer.eps)
        return _scaled(to, to.add("Reshape", z, to.sizes(x, 0)), x, weight, bias)


class WriteInstanceNorm(OnnxWriter):
    """InstanceNormalization."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port | None, bias: Port | None) -> str:
        scale, shift = _affine(to, x.size(1), weight, bias)
        return to.add("InstanceNormalization", x, scale, shift, epsilon=layer.eps)


class WritePixelNorm(OnnxWriter):
    """Mean and variance of the channels by ReduceMean."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port | None, bias: Port | None) -> str:
        centered = to.add("Sub", x, to.mean(x, [1]))
        std = _root_mean_square(to, centered, [1], layer.eps)
        z = to.add("Div", centered if layer.subtract_mean else x, std)
        return _scaled(to, z, x, weight, bias)


class WriteLayerNorm(OnnxWriter):
    """LayerNormalization."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port | None, bias: Port | None) -> str:
        last = [x.size(axis) for axis in layer.axes]
        scale: Input = weight or to.constant(torch.ones(last, dtype=to.dtype))
        axis = -len(layer.axes)
        return to.add("LayerNormalization", x, scale, bias, axis=axis, epsilon=layer.eps)


class WriteRMSNorm(OnnxWriter):
    """The mean of the squares by ReduceMean."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port | None) -> str:
        eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
        z = to.add("Div", x, _root_mean_square(to, x, layer.axes, eps))
        return z if weight is None else to.add("Mul", z, weight)


def _affine(
    to: Nodes, channels: int, weight: Port | None, bias: Port | None
) -> tuple[Input, Input]:
    """Weight and bias, or ones and zeros if a layer has none, since the operators need them."""
    return (
        weight or to.constant(torch.ones(channels, dtype=to.dtype)),
        bias or to.constant(torch.zeros(channels, dtype=to.dtype)),
    )


def _scaled(to: Nodes, z: str, x: Port, weight: Port | None, bias: Port | None) -> str:
    """weight z + bias along the channels of x; without the weight or bias that does not exist."""
    if weight is not None:
        z = to.add("Mul", z, to.per_channel(weight, x))
    return z if bias is None else to.add("Add", z, to.per_channel(bias, x))


def _root_mean_square(to: Nodes, x: Input, axes: Any, eps: float) -> str:
    """sqrt(mean of x^2 over the axes + eps)."""
    square = to.mean(to.add("Mul", x, x), axes)
    return to.add("Sqrt", to.add("Add", square, to.number(eps)))


WRITERS: Mapping[str, type[OnnxWriter]] = {
    **{f"batch_norm{axes}d": WriteBatchNorm for axes in (1, 2, 3)},
    **{f"layer_norm{axes}d": WritePixelNorm for axes in (1, 2, 3)},
    "group_norm": WriteGroupNorm,
    "instance_norm": WriteInstanceNorm,
    "layer_norm": WriteLayerNorm,
    "rms_norm": WriteRMSNorm,
}
