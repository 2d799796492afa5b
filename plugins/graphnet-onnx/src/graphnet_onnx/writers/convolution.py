"""Writers of convolutions, transposed convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet_onnx.writers.pad import pads_of, write_border
from graphnet_onnx.writing import Input, Nodes, OnnxWriter, Port


class WriteConv(OnnxWriter):
    """Conv, after a Pad if the padding shows something else than zeros."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port, bias: Port | None) -> str:
        sides = layer.pads()
        image: Input = x
        if not layer.pads_zeros:
            image, sides = write_border(to, x, sides, layer.padding_mode), [0] * len(sides)
        return to.add(
            "Conv",
            image,
            weight,
            bias,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            pads=pads_of(sides),
            group=x.size(1) // weight.size(1),
        )


class WriteTransposeConv(OnnxWriter):
    """ConvTranspose."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port, bias: Port | None) -> str:
        return to.add(
            "ConvTranspose",
            x,
            weight,
            bias,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            pads=[*layer.padding, *layer.padding],
            output_padding=list(layer.output_padding),
            group=layer.groups,
        )


class WriteLinear(OnnxWriter):
    """Gemm for rows of features, MatMul and Add for more axes."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port, bias: Port | None) -> str:
        if x.ndim == 2:
            return to.add("Gemm", x, weight, bias, transB=1)
        y = to.add("MatMul", x, to.transpose(weight, (1, 0)))
        return y if bias is None else to.add("Add", y, bias)


WRITERS: Mapping[str, type[OnnxWriter]] = {
    **{f"conv{axes}d": WriteConv for axes in (1, 2, 3)},
    **{f"depthwise_conv{axes}d": WriteConv for axes in (1, 2, 3)},
    **{f"transpose_conv{axes}d": WriteTransposeConv for axes in (1, 2, 3)},
    "linear": WriteLinear,
}
