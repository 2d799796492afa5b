"""Writers of layers that combine tensors, split one, or take a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet_onnx.writing import FAR, Nodes, OnnxWriter, Port


class WriteAdd(OnnxWriter):
    """Add for two tensors, Sum for another number of them."""

    def write(self, layer: Any, to: Nodes, *xs: Port) -> str:
        return to.add("Add" if len(xs) == 2 else "Sum", *xs)


class WriteBroadcastAdd(OnnxWriter):
    """Add."""

    def write(self, layer: Any, to: Nodes, x: Port, other: Port) -> str:
        return to.add("Add", x, other)


class WriteMatmul(OnnxWriter):
    """MatMul."""

    def write(self, layer: Any, to: Nodes, x: Port, other: Port) -> str:
        return to.add("MatMul", x, other)


class WriteMultiply(OnnxWriter):
    """Mul."""

    def write(self, layer: Any, to: Nodes, x: Port, other: Port) -> str:
        return to.add("Mul", x, other)


class WriteSubtract(OnnxWriter):
    """Sub."""

    def write(self, layer: Any, to: Nodes, x: Port, other: Port) -> str:
        return to.add("Sub", x, other)


class WriteConcat(OnnxWriter):
    """Concat."""

    def write(self, layer: Any, to: Nodes, *xs: Port) -> str:
        return to.add("Concat", *xs, axis=layer.dim)


class WriteSplit(OnnxWriter):
    """Two Slices, or a Split into halves."""

    def write(self, layer: Any, to: Nodes, x: Port) -> tuple[str, str]:
        if layer.size is not None:
            first = to.slice(x, layer.dim, 0, layer.size)
            return first, to.slice(x, layer.dim, layer.size, FAR)
        first, rest = to.split(x, 2, axis=layer.dim)
        return first, rest


class WriteSlice(OnnxWriter):
    """Slice."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        end = FAR if layer.end is None else layer.end
        return to.slice(x, layer.dim, layer.start, end, step=layer.step)


class WriteSimpleGate(OnnxWriter):
    """The product of the two halves of the channels."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("Mul", *to.split(x, 2, axis=1))


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "add": WriteAdd,
    "broadcast_add": WriteBroadcastAdd,
    "matmul": WriteMatmul,
    "multiply": WriteMultiply,
    "subtract": WriteSubtract,
    "concat": WriteConcat,
    "split": WriteSplit,
    "slice": WriteSlice,
    "simple_gate": WriteSimpleGate,
}
