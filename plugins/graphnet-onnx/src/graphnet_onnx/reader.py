"""The reader of .onnx files: it restores what `export` wrote, and reads other files operator by operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from graphnet.description import parse
from graphnet.errors import DescriptionError, GraphnetError, Problem
from graphnet.model import Model
from graphnet.sdk import ModelFile
from graphnet_onnx.exporter import FORMAT, METADATA, to_onnx
from graphnet_onnx.operators import READERS, read_nodes
from graphnet_onnx.operators.walk import as_tensor


def read(path: Path) -> ModelFile:
    """Read a model from an ONNX file.

    A file that `export` wrote, and that nobody has changed, gives its description as it was. Any other file
    is read operator by operator; each operator becomes a layer that computes the same.

    Raises:
        DescriptionError: the file is no whole ONNX file, or has operators that no layers compute; the error
            names each of them.
    """
    proto = _checked(path)
    return _as_exported(proto) or read_operators(proto, str(path))


def read_operators(proto: onnx.ModelProto, where: str) -> ModelFile:
    """Read a checked ONNX model operator by operator. Raises DescriptionError."""
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    try:
        return read_nodes(proto, READERS)
    except DescriptionError as error:
        raise DescriptionError([replace(p, where=where) for p in error.problems]) from None


def _checked(path: Path) -> onnx.ModelProto:
    """The content of a file. Raises DescriptionError unless it is valid ONNX."""
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        outside = [t for t in proto.graph.initializer if t.data_location == t.EXTERNAL]
        if outside:
            onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
        if not all(isinstance(name, str) for name in _names(proto.graph)):
            raise ValueError("a name in it is no text in UTF-8")
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        message = f"not a whole ONNX file: {' '.join(str(error).split())}"
        raise DescriptionError([Problem(message, where=str(path))]) from None
    return proto


def _names(graph: onnx.GraphProto) -> Iterator[object]:
    """All names in a graph; protobuf returns bytes for a name that is no text."""
    yield graph.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        yield named.name
    for info in (*graph.input, *graph.output, *graph.value_info):
        yield from (axis.dim_param for axis in info.type.tensor_type.shape.dim)


def _as_exported(proto: onnx.ModelProto) -> ModelFile | None:
    """The description and weights that were exported; None if this is no export, or was changed since."""
    text = next((one.value for one in proto.metadata_props if one.key == METADATA), None)
    if text is None:
        return None
    try:
        header: Any = json.loads(text)
        if header["format"] != FORMAT:
            return None
        description = parse(header["description"])
        shapes = [tuple(shape) for shape in header["inputs"]]
        tensors = {one.name: as_tensor(one) for one in proto.graph.initializer}
        slots = Model(description).graph(*shapes)
        weights = {name: tensor for name, tensor in tensors.items() if name in slots.values}
        (opset,) = (one.version for one in proto.opset_import)
        model = Model(description, weights=weights)
        again = to_onnx(model, *shapes, fixed=header["fixed"], opset=opset)
    except (GraphnetError, KeyError, TypeError, ValueError):
        return None  # another version wrote it, or a plugin is missing: the operators say what it computes
    same = again.graph.SerializeToString(deterministic=True) == proto.graph.SerializeToString(
        deterministic=True
    )
    return ModelFile(description, weights) if same else None
