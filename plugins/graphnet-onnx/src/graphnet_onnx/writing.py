"""Writing: the part of the ONNX graph that a layer's writer uses, and the base class of writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Definition

KIND = "onnx_writers"
"""The kind's name: the hook is graphnet_onnx_writers."""
OPSET = 20
"""The version of ONNX's operators in exported files, unless another one is asked for."""
OPSETS = range(17, OPSET + 1)
"""The versions of ONNX's operators that can be written."""
_AXES_AS_INPUT = 18  # the opset since which reductions and Pad read their axes as an input
_WRAP = 19  # the opset since which Pad can wrap around


class CannotExport(GraphError):
    """ONNX has no operators for what this layer computes with these fields, on these shapes."""


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that a layer reads: an input, a parameter or a state.

    Attributes:
        name: its name in the ONNX graph.
        shape: its sizes; None for a free size, which may differ from call to call.
        dtype: its dtype.
        depends: for each axis, the names of the free sizes on which its size depends.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype
    depends: tuple[tuple[str, ...], ...]

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    def size(self, axis: int) -> int:
        """The size of an axis that has to be known. Raises CannotExport if it is free."""
        found = self.shape[axis]
        if found is None:
            raise CannotExport(
                f"needs the size of axis {axis % self.ndim}, which is free. {self.remedy(axis)}"
            )
        return found

    def remedy(self, axis: int) -> str:
        """What to do where an axis is free and must not be: a sentence for an error."""
        names = self.depends[axis]
        option = f"fixed={names[0]}" if len(names) == 1 else f"'fixed=[{', '.join(names)}]'"
        return f"Fix {' and '.join(map(repr, names))}: export(..., fixed={list(names)}), or --set {option}."


Input = Port | str
"""A tensor in the ONNX graph: a port of the layer, or the name of a node's result."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A node of ONNX: its operator, the names of what it reads and of its results, its attributes."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]
    name: str


@dataclass
class Nodes:
    """The nodes of one layer: a writer adds them with `add`.

    Args:
        prefix: the name of the layer's node in the model; all names start with it.
        dtype: the floating dtype of the model.
        opset: the version of the operators.
        operations: the nodes that were added.
        constants: the tensors that were added, by name.
    """

    prefix: str
    dtype: torch.dtype
    opset: int = OPSET
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def add(self, operator: str, *inputs: Input | None, **attributes: Any) -> str:
        """Add a node of an ONNX operator, and return the name of its result.

        Args:
            operator: such as "Conv".
            inputs: what it reads; None for an optional input that is left out.
            attributes: its attributes; those with the value None are left out.
        """
        return self.add_many(operator, *inputs, outputs=1, **attributes)[0]

    def add_many(
        self, operator: str, *inputs: Input | None, outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several results, and return their names."""
        name = f"{self.prefix}/{operator}_{len(self.operations)}"
        results = [name if outputs == 1 else f"{name}:{i}" for i in range(outputs)]
        names = [_name(one) for one in inputs]
        while names and not names[-1]:
            names.pop()
        given = {key: value for key, value in attributes.items() if value is not None}
        self.operations.append(Operation(operator, names, results, given, name))
        return results

    def constant(self, tensor: Tensor) -> str:
        """Add a tensor that is fixed, and return its name."""
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants[name] = tensor
        return name

    def number(self, value: float) -> str:
        """Add one number in the model's dtype, and return its name."""
        return self.constant(torch.tensor(value, dtype=self.dtype))

    def integers(self, values: Sequence[int]) -> str:
        """Add a list of integers, such as axes or a shape, and return its name."""
        return self.constant(torch.tensor(list(values), dtype=torch.int64))

    def reshape(self, x: Input, shape: Sequence[int]) -> str:
        """Give x another shape: 0 takes the size of x on that axis, -1 the size that is left."""
        return self.add("Reshape", x, self.integers(shape))

    def sizes(self, x: Input, start: int, end: int | None = None) -> str:
        """The sizes of x on the axes from start to end (without end), as integers, when the model runs."""
        return self.add("Shape", x, start=start, end=end)

    def transpose(self, x: Input, order: Sequence[int]) -> str:
        """Put the axes of x into another order."""
        return self.add("Transpose", x, perm=list(order))

    def mean(self, x: Input, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """The mean of x over some axes."""
        return self.reduce("ReduceMean", x, axes, keepdims=keepdims)

    def reduce(self, operator: str, x: Input, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Reduce x over some axes; the operator is ReduceMean, ReduceMax or ReduceL2."""
        if self.opset < _AXES_AS_INPUT:
            return self.add(operator, x, axes=list(axes), keepdims=int(keepdims))
        return self.add(operator, x, self.integers(axes), keepdims=int(keepdims))

    def split(self, x: Input, parts: int, axis: int) -> list[str]:
        """Split x into equal parts on one axis."""
        stated = parts if self.opset >= _AXES_AS_INPUT else None  # before, the outputs say it
        return self.add_many("Split", x, outputs=parts, axis=axis, num_outputs=stated)

    def pad(self, x: Port, pads: Sequence[int], mode: str, *, value: float = 0.0) -> str:
        """Add a border to an image (N, C, ...).

        Args:
            x: the image.
            pads: the rows before each spatial axis, then those after it.
            mode: "constant", "reflect", "edge" or "wrap".
            value: what a constant border is filled with.
        """
        if mode == "wrap" and self.opset < _WRAP:
            raise CannotExport(
                f"pads by wrapping around, which ONNX has from opset {_WRAP} on; this file has {self.opset}"
            )
        filling = self.number(value) if mode == "constant" else None
        if self.opset >= _AXES_AS_INPUT:
            axes = self.integers(range(2, x.ndim))
            return self.add("Pad", x, self.integers(pads), filling, axes, mode=mode)
        half = len(pads) // 2
        everywhere = [0, 0, *pads[:half], 0, 0, *pads[half:]]
        return self.add("Pad", x, self.integers(everywhere), filling, mode=mode)

    def per_channel(self, weight: Port, x: Port) -> Input:
        """A weight (C,) or (1,) so that it broadcasts along axis 1 of x."""
        return self.reshape(weight, (-1, *(1,) * (x.ndim - 2))) if x.ndim > 2 else weight

    def slice(self, x: Input, axis: int, start: int, end: int, *, step: int = 1) -> str:
        """The part of x from start to end (without it) on one axis; both count from the end if negative."""
        ranges = (self.integers([number]) for number in (start, end, axis, step))
        return self.add("Slice", x, *ranges)


def _name(value: Input | None) -> str:
    return value.name if isinstance(value, Port) else value or ""


class OnnxWriter(Definition):
    """Base of what writes a layer as ONNX operators; registered under the layer's name.

    A subclass defines `write(self, layer, to, ...)`. `layer` is the definition with its fields, and `to`
    takes the nodes. The other arguments have the names of the tensors that the layer's `inference` takes, or
    its `forward` if it has none; each is a Port, or None for an absent parameter. `write` returns the name of
    the layer's output, or a tuple of names if it has several; it raises CannotExport if it cannot write it.

    >>> class WriteSwish(OnnxWriter):
    ...     def write(self, layer, to, x, beta):
    ...         return to.add("Mul", x, to.add("Sigmoid", to.add("Mul", x, beta)))
    """


FAR = 2**31 - 1
"""An end of a slice that is larger than every axis."""
