"""Writers of activations and of layers that scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from graphnet_onnx.writing import Nodes, OnnxWriter, Port


class _Same(OnnxWriter):
    """A layer without fields that is one operator."""

    operator: ClassVar[str]

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add(self.operator, x)


class WriteReLU(_Same):
    """Relu."""

    operator: ClassVar[str] = "Relu"


class WriteSigmoid(_Same):
    """Sigmoid."""

    operator: ClassVar[str] = "Sigmoid"


class WriteTanh(_Same):
    """Tanh."""

    operator: ClassVar[str] = "Tanh"


class WriteIdentity(_Same):
    """Identity, for layers that do nothing in inference."""

    operator: ClassVar[str] = "Identity"


class WriteLeakyReLU(OnnxWriter):
    """LeakyRelu."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("LeakyRelu", x, alpha=layer.negative_slope)


class WritePReLU(OnnxWriter):
    """PRelu, with the slopes along the channels."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port) -> str:
        return to.add("PRelu", x, to.per_channel(weight, x))


class WriteGELU(OnnxWriter):
    """Gelu, which ONNX has from opset 20 on; before, its equation."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        if to.opset >= 20:
            return to.add("Gelu", x, approximate=layer.approximate)
        if layer.approximate == "tanh":
            cubic = to.add("Mul", to.add("Mul", to.add("Mul", x, x), x), to.number(0.044715))
            inner = to.add("Mul", to.add("Add", x, cubic), to.number(math.sqrt(2 / math.pi)))
            bent = to.add("Tanh", inner)
        else:
            bent = to.add("Erf", to.add("Mul", x, to.number(math.sqrt(0.5))))
        half = to.add("Mul", x, to.number(0.5))
        return to.add("Mul", half, to.add("Add", bent, to.number(1.0)))


class WriteSiLU(OnnxWriter):
    """x times its Sigmoid."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Mul", x, to.add("Sigmoid", x))


class WriteSoftplus(OnnxWriter):
    """Softplus of beta x, divided by beta; x itself above the threshold."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        z = to.add("Mul", x, to.number(layer.beta))
        soft = to.add("Div", to.add("Softplus", z), to.number(layer.beta))
        return to.add("Where", to.add("Greater", z, to.number(layer.threshold)), x, soft)


class WriteELU(OnnxWriter):
    """Elu."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Elu", x, alpha=layer.alpha)


class WriteHardtanh(OnnxWriter):
    """Clip between two numbers."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Clip", x, to.number(layer.min_val), to.number(layer.max_val))


class WriteReLU6(OnnxWriter):
    """Clip between 0 and 6."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Clip", x, to.number(0.0), to.number(6.0))


class WriteHardsigmoid(OnnxWriter):
    """HardSigmoid, with the slope 1 / 6."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("HardSigmoid", x, alpha=1.0 / 6.0, beta=0.5)


class WriteHardswish(_Same):
    """HardSwish."""

    operator: ClassVar[str] = "HardSwish"


class WriteTensor(OnnxWriter):
    """Identity of a tensor of the layer's own."""

    def write(self, layer: Any, to: Nodes, x: Port, value: Port) -> str:
        return to.add("Identity", value)


class WriteSoftmax(OnnxWriter):
    """Softmax."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Softmax", x, axis=layer.dim)


class WriteLogSoftmax(OnnxWriter):
    """LogSoftmax."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("LogSoftmax", x, axis=layer.dim)


class WriteRescale(OnnxWriter):
    """The product with one number."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Mul", x, to.number(layer.factor))


class WriteAddScalar(OnnxWriter):
    """The sum with one number."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Add", x, to.number(layer.value))


class WriteLayerScale(OnnxWriter):
    """The product with a weight for each channel."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port) -> str:
        return to.add("Mul", x, to.per_channel(weight, x))


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "relu": WriteReLU,
    "leaky_relu": WriteLeakyReLU,
    "prelu": WritePReLU,
    "sigmoid": WriteSigmoid,
    "tanh": WriteTanh,
    "gelu": WriteGELU,
    "silu": WriteSiLU,
    "softplus": WriteSoftplus,
    "elu": WriteELU,
    "hardtanh": WriteHardtanh,
    "relu6": WriteReLU6,
    "hardsigmoid": WriteHardsigmoid,
    "hardswish": WriteHardswish,
    "trained_tensor": WriteTensor,
    "fixed_tensor": WriteTensor,
    "softmax": WriteSoftmax,
    "log_softmax": WriteLogSoftmax,
    "rescale": WriteRescale,
    "add_scalar": WriteAddScalar,
    "layer_scale": WriteLayerScale,
    "dropout": WriteIdentity,
}
