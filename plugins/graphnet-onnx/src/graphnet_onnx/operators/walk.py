"""Walk: the layers, the inputs and the outputs of a whole ONNX graph, node by node."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from graphnet.errors import DescriptionError, Problem, nearest
from graphnet.sdk import ModelFile, dtype_name
from graphnet_onnx.operators.reading import Node, OperatorReader, Reading, Shape, Unreadable

_MOST_FOLDED = 2**26  # elements of a constant that is computed


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
    sizes: dict[str, str] = {}
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
            else _size_name(axis.dim_param or f"free_{number}_{position}", sizes)
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


def _size_name(stated: str, known: dict[str, str]) -> str:
    """The name of a free size in a description; other names of ONNX have other names there."""
    if stated not in known:
        name = re.sub(r"\W", "_", stated, flags=re.ASCII)
        name = name if re.match(r"[A-Za-z_]", name) else f"n_{name}"
        while name in known.values():
            name += "_"
        known[stated] = name
    return known[stated]


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
