"""Reading: what the reader of an operator sees of its node, and the walk over all nodes of a graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from graphnet.errors import DescriptionError, Problem, nearest
from graphnet.sdk import ModelFile, dtype_name

Shape = tuple[int | None, ...]
_MOST_FOLDED = 2**26  # elements of a constant that is computed


class Unreadable(Exception):
    """No layers compute what this node computes; the message says why."""


@dataclass
class Reading:
    """The part of the model that has been read so far.

    Attributes:
        shapes: the sizes of the values of the graph, None where a size is free; no entry if nothing is known.
        constants: the tensors that are fixed, by name.
        references: how a description names each value that layers compute.
        layers: the nodes of the description.
        weights: the tensors of the layers, by name.
        uses: how often each value is read; graph outputs count.
        failed: the values that could not be read.
    """

    opset: int
    shapes: Mapping[str, Shape]
    uses: Mapping[str, int]
    constants: dict[str, Tensor]
    references: dict[str, str] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def unique(self, wanted: str) -> str:
        """A name for a node of the description that no other has, made from this one."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", wanted).strip("_-") or "node"
        plain = plain if plain[0].isalpha() else f"n_{plain}"
        known = {layer["id"] for layer in self.layers}
        found, number = plain, 1
        while found in known:
            number += 1
            found = f"{plain}_{number}"
        return found


@dataclass(frozen=True)
class Node:
    """One ONNX node: its inputs, its attributes, and the layers that are made of it."""

    proto: onnx.NodeProto
    reading: Reading
    attributes: Mapping[str, Any]

    @property
    def count(self) -> int:
        """The number of inputs, without those left out at the end."""
        names = list(self.proto.input)
        while names and not names[-1]:
            names.pop()
        return len(names)

    def has(self, index: int) -> bool:
        """Whether this input is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def is_constant(self, index: int) -> bool:
        """Whether this input is a tensor that is fixed."""
        return self.has(index) and self.proto.input[index] in self.reading.constants

    def constant(self, index: int) -> Tensor:
        """A fixed input. Raises Unreadable if it is computed."""
        if not self.is_constant(index):
            raise Unreadable(f"its input {self.proto.input[index]!r} must be a constant")
        return self.reading.constants[self.proto.input[index]]

    def optional(self, index: int) -> Tensor | None:
        """A fixed input, or None if it is left out."""
        return self.constant(index) if self.has(index) else None

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A list of integers that older operators have as an attribute and newer ones as an input."""
        if self.has(index):
            return [int(n) for n in self.constant(index).reshape(-1)]
        given = self.attributes.get(attribute)
        return None if given is None else list(given)

    def value(self, index: int = 0) -> str:
        """A computed input, as a description names it. Raises Unreadable if it is a constant."""
        name = self.proto.input[index]
        if name not in self.reading.references:
            raise Unreadable(
                f"its input {name!r} is a constant, where layers take computed tensors only"
            )
        return self.reading.references[name]

    def values(self) -> list[str]:
        """All inputs, as a description names them."""
        return [self.value(i) for i in range(self.count)]

    def shape(self, index: int = 0) -> Shape:
        """The sizes of an input. Raises Unreadable if the number of its axes is not known."""
        name = self.proto.input[index]
        if name in self.reading.constants:
            return tuple(self.reading.constants[name].shape)
        if name not in self.reading.shapes:
            raise Unreadable(f"the number of axes of its input {name!r} is not known")
        return self.reading.shapes[name]

    def size(self, axis: int, index: int = 0) -> int:
        """The size of an axis of an input. Raises Unreadable if it is free."""
        found = self.shape(index)[axis]
        if found is None:
            raise Unreadable(f"the size of axis {axis} of {self.proto.input[index]!r} is free")
        return found

    def spatial(self, index: int = 0) -> int:
        """The number of axes after batch and channels. Raises Unreadable unless it is 1, 2 or 3."""
        axes = len(self.shape(index)) - 2
        if axes not in (1, 2, 3):
            raise Unreadable(f"layers have one, two or three spatial axes, found {axes}")
        return axes

    def only(self, **allowed: Any) -> None:
        """Raise Unreadable if an attribute has another value than this one, which layers have."""
        for name, value in allowed.items():
            found = self.attributes.get(name, value)
            if found != value:
                raise Unreadable(f"{name} {found!r} has no layer, only {value!r}")

    def unused(self, *outputs: int) -> None:
        """Raise Unreadable if anything reads one of these outputs, which layers do not return."""
        for index in outputs:
            if len(self.proto.output) > index and self.reading.uses.get(self.proto.output[index]):
                raise Unreadable(f"its output {index} ({self.proto.output[index]!r}) has no layer")

    def add(
        self,
        layer: str,
        *inputs: str,
        weights: Mapping[str, Tensor | None] | None = None,
        **fields: Any,
    ) -> str:
        """Add a layer, and return how a description names its output.

        Args:
            layer: its name.
            inputs: what it reads; by default the first input of this node.
            weights: its parameters and states; None for one that it does not have.
            fields: its fields.
        """
        wanted = self.proto.name or next(filter(None, self.proto.output), layer)
        name = self.reading.unique(wanted)
        read = list(inputs) or [self.value()]
        self.reading.layers.append({"id": name, layer: fields, "inputs": read})
        for port, tensor in (weights or {}).items():
            if tensor is not None:
                self.reading.weights[f"{name}.{port}"] = tensor.clone()
        return name

    def returns(self, *references: str) -> None:
        """State which references the outputs of this node are."""
        for name, reference in zip(self.proto.output, references, strict=False):
            if name:
                self.reading.references[name] = reference


OperatorReader = Callable[[Node], str | tuple[str, ...]]
"""Makes layers of a node, and returns the references of its outputs. Raises Unreadable."""


def read_nodes(proto: onnx.ModelProto, readers: Mapping[str, OperatorReader]) -> ModelFile:
    """Make a description and weights of the operators of a checked ONNX model.

    Raises DescriptionError with each node that no layers compute.
    """
    graph = proto.graph
    reading = _start(proto)
    problems: list[Problem] = []
    inputs = _inputs(graph, reading, problems)
    for index, node in enumerate(graph.node):
        if any(name in reading.failed for name in node.input):
            reading.failed.update(node.output)
            continue
        try:
            _read(node, reading, readers)
        except Unreadable as error:
            reading.failed.update(node.output)
            name = node.name or next(filter(None, node.output), "")
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            problems.append(Problem(f"{error}", f"node {index} {name!r} ({kind})"))
    if problems:
        raise DescriptionError(problems)
    outputs = _outputs(graph, reading)
    name = re.sub(r"\s+", " ", graph.name).strip() or "model"
    data = {"name": name, "inputs": inputs, "layers": reading.layers, "outputs": outputs}
    return ModelFile(data, reading.weights)


def _start(proto: onnx.ModelProto) -> Reading:
    """What is known before the first node."""
    graph = proto.graph
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    for info in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = info.type.tensor_type
        if info.type.HasField("tensor_type") and kind.HasField("shape"):
            shapes[info.name] = tuple(
                axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim
            )
    uses: dict[str, int] = {}
    for name in (
        *(name for node in graph.node for name in node.input),
        *(info.name for info in graph.output),
    ):
        uses[name] = uses.get(name, 0) + 1
    constants = {one.name: as_tensor(one) for one in graph.initializer}
    return Reading(opset, shapes, uses, constants)


def as_tensor(proto: onnx.TensorProto) -> Tensor:
    """The tensor of an ONNX tensor. Raises DescriptionError for a dtype that torch does not have."""
    try:
        return torch.from_numpy(np.array(numpy_helper.to_array(proto)))
    except (KeyError, TypeError, ValueError):
        message = "expected a tensor of numbers of a dtype that torch takes from numpy"
        raise DescriptionError([Problem(message, f"tensor {proto.name!r}")]) from None


def _inputs(
    graph: onnx.GraphProto, reading: Reading, problems: list[Problem]
) -> dict[str, dict[str, Any]]:
    """The inputs of the description; those that cannot be described are added to `problems`."""
    found: dict[str, dict[str, Any]] = {}
    for number, info in enumerate(graph.input):
        if info.name in reading.constants:
            continue
        kind = info.type.tensor_type
        place = f"input {info.name!r}"
        if not info.type.HasField("tensor_type") or not kind.HasField("shape"):
            problems.append(Problem("expected a tensor with a known number of axes", place))
            reading.failed.add(info.name)
            continue
        axes = list(kind.shape.dim)
        if not axes or any(axis.HasField("dim_value") and axis.dim_value < 1 for axis in axes[1:]):
            problems.append(Problem("expected a batch axis, and sizes greater than 0", place))
            reading.failed.add(info.name)
            continue
        shape = [
            axis.dim_value
            if axis.HasField("dim_value")
            else re.sub(r"\W", "_", f"n_{axis.dim_param}")
            if axis.dim_param and not re.fullmatch(r"[A-Za-z_]\w*", axis.dim_param)
            else axis.dim_param or f"free_{number}_{position}"
            for position, axis in enumerate(axes[1:], start=1)
        ]
        name = re.sub(r"[^A-Za-z0-9_-]", "_", info.name)
        name = name if re.match(r"[A-Za-z_]", name) else f"input_{name}"
        while name in found:
            name += "_"
        described: dict[str, Any] = {"shape": shape}
        try:
            dtype = torch.from_numpy(
                np.zeros(1, helper.tensor_dtype_to_np_dtype(kind.elem_type))
            ).dtype
        except (TypeError, KeyError):
            problems.append(Problem("expected a tensor of numbers that torch has", place))
            reading.failed.add(info.name)
            continue
        if not dtype.is_floating_point:
            described["dtype"] = dtype_name(dtype)
        found[name] = described
        reading.references[info.name] = f"${name}"
    return found


def _read(proto: onnx.NodeProto, reading: Reading, readers: Mapping[str, OperatorReader]) -> None:
    """Read one node: compute it if all its inputs are fixed, else make layers of it."""
    attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in proto.attribute}
    node = Node(proto, reading, attributes)
    known = proto.domain in ("", "ai.onnx")
    fixed = all(name in reading.constants for name in proto.input if name)
    if known and fixed and _fold(proto, reading):
        return
    if not known or proto.op_type not in readers:
        raise Unreadable(f"no layer computes this operator. {nearest(proto.op_type, readers)}")
    made = readers[proto.op_type](node)
    node.returns(*((made,) if isinstance(made, str) else made))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _fold(proto: onnx.NodeProto, reading: Reading) -> bool:
    """Compute a node whose inputs are all fixed by ONNX's own arithmetic; False if it cannot be computed."""
    if proto.op_type.startswith("Random") or any(a.HasField("g") for a in proto.attribute):
        return False
    for output in proto.output:
        shape = reading.shapes.get(output, ())
        if math.prod(size for size in shape if size is not None) > _MOST_FOLDED:
            raise Unreadable("a constant that it computes is too large")
    names = [name for name in proto.input if name]
    infos = [helper.make_tensor_value_info(name, 1, None) for name in dict.fromkeys(names)]
    outs = [helper.make_tensor_value_info(name, 1, None) for name in proto.output if name]
    model = helper.make_model(
        helper.make_graph([proto], "constant", infos, outs),
        opset_imports=[helper.make_opsetid("", reading.opset)],
    )
    given = {name: reading.constants[name].numpy() for name in names}
    try:
        arrays = ReferenceEvaluator(model).run(None, given)
        tensors = [torch.from_numpy(np.array(array)) for array in arrays]
    except Exception:  # ONNX's arithmetic lacks the operator: a layer may have it
        return False
    reading.constants.update(zip((info.name for info in outs), tensors, strict=True))
    return True


def _outputs(graph: onnx.GraphProto, reading: Reading) -> list[str]:
    """The outputs of the description: the node of each one."""
    found: list[str] = []
    for info in graph.output:
        reference = reading.references.get(info.name)
        if reference is None:
            problem = Problem("is a constant, which no layer makes", f"output {info.name!r}")
            raise DescriptionError([problem])
        if reference.startswith("$") or reference in found:  # an input, or two names for one value
            name = reading.unique(info.name)
            reading.layers.append({"id": name, "rescale": {"factor": 1.0}, "inputs": [reference]})
            reference = name
        found.append(reference)
    return found
