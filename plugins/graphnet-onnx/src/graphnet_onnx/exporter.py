"""Export: write a model as an ONNX file, layer by layer, with its weights as initializers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from graphnet.errors import ContractError, InputError, LayerError, blame
from graphnet.graph import Arg, Call, Kind
from graphnet.model import Model, set_up, versions_of
from graphnet.sdk import Layer, Registry, Written
from graphnet.system import atomic_write
from graphnet_onnx.sizes import Sizes, find_sizes
from graphnet_onnx.writing import KIND, OPSET, OPSETS, CannotExport, Nodes, Port

METADATA = "graphnet"
"""The name of the text in a file's metadata that has the model's description."""
FORMAT = 1
_MOST_BYTES = 2**31 - 1  # of a protobuf message


def export(
    model: Model,
    path: Path | str,
    *shapes: tuple[int, ...],
    fixed: Collection[str] = (),
    opset: int = OPSET,
) -> Written:
    """Write a model's inference as an ONNX file, in float32.

    The model's weights are written; a model without weights gets those that `predict` draws from its seed.

    Args:
        model: the model.
        path: the file to write; its name ends with .onnx.
        shapes: a shape for each input, such as (1, 3, 64, 64).
        fixed: the names of the sizes that the file fixes to those of `shapes`, such as ["height", "width"],
            or ["all"]. The other sizes that the model's description leaves open, and the batch, are free in
            the file if the model takes other numbers there.
        opset: the version of ONNX's operators, 17 to 20; older programs need an older one.

    Raises:
        CannotExport: a layer has no writer, or its writer cannot write it; the error names each such node.
        GraphError: the shapes do not fit the model.
        InputError: the path does not end with .onnx, `fixed` has a name that no open size has, or `opset`
            cannot be written.
        WriteError: the file cannot be written.

    >>> import graphnet as gn
    >>> model = gn.Model({"input": {"channels": 3}, "layers": ["relu"]})
    >>> export(model, "relu.onnx", (1, 3, 8, 8)).inputs
    {'input': 'batch x 3 x height x width'}
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: expected a name that ends with .onnx, found {path.name!r}")
    proto = to_onnx(model, *shapes, fixed=fixed, opset=opset)
    if proto.ByteSize() > _MOST_BYTES:
        raise CannotExport(
            f"{model.description.name}: the model has {proto.ByteSize()} bytes, and one ONNX file can have "
            f"{_MOST_BYTES}"
        )
    data = proto.SerializeToString(deterministic=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    count = len(proto.graph.node)
    return Written(
        path,
        _texts(proto.graph.input),
        _texts(proto.graph.output),
        len(data),
        f"{count} ONNX nodes",
    )


def to_onnx(
    model: Model, *shapes: tuple[int, ...], fixed: Collection[str] = (), opset: int = OPSET
) -> onnx.ModelProto:
    """Make the ONNX model that `export` writes. Raises what it raises."""
    if opset not in OPSETS:
        raise InputError(
            f"{model.description.name}: opset: expected {OPSETS[0]} to {OPSETS[-1]}, found {opset}"
        )
    sizes = find_sizes(model, shapes, fixed=fixed)
    weights = set_up(sizes.slots.values(), seed=model.seed, given=model.weights)
    nodes = _Export(model.registry, sizes, opset).run()
    graph = sizes.graph
    proto = helper.make_model(
        helper.make_graph(
            nodes.nodes,
            model.description.name,
            [_info(name, _input_name(name), sizes) for name in graph.inputs],
            [
                _info(value, name, sizes)
                for value, name in zip(graph.outputs, graph.output_names, strict=True)
            ],
            [*map(_initializer, weights, weights.values()), *nodes.constants],
        ),
        opset_imports=[operators := helper.make_opsetid("", opset)],
        ir_version=helper.find_min_ir_version_for([operators]),
        producer_name="graphnet",
    )
    header = {
        "format": FORMAT,
        "description": model.description.to_data(),
        "inputs": [list(shape) for shape in shapes],
        "fixed": sorted(fixed),
        "versions": versions_of(model.registry, model.description),
    }
    helper.set_model_props(proto, {METADATA: json.dumps(header)})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = " ".join(str(error).split())
        raise LayerError(f"a writer wrote what is not valid ONNX: {message}") from error
    return proto


class _Export:
    """Writes the calls of a graph, one after the other."""

    def __init__(self, registry: Registry, sizes: Sizes, opset: int) -> None:
        self.registry = registry
        self.opset = opset
        self.sizes = sizes
        self.graph = sizes.graph
        self.names = {name: _input_name(name) for name in self.graph.inputs}
        self.problems: list[str] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        first: dict[type, str] = {}
        for entry in registry.layers.values():
            first.setdefault(entry.value, entry.name)
        self.layer_names = first

    def run(self) -> _Export:
        """Write all calls. Raises CannotExport with a line for each one that cannot be written."""
        for call in self.graph.calls.values():
            where = f"{call.where}: " if call.where else ""
            at = f"{where}node {call.node!r} ({call.title}): "
            try:
                with blame(at, "its ONNX writer"):
                    self.call(call)
            except CannotExport as error:
                self.problems.append(str(error))
                self.names.update({name: name for name in call.makes()})
        if self.problems:
            raise CannotExport("\n".join(self.problems))
        for value, name in zip(self.graph.outputs, self.graph.output_names, strict=True):
            self.nodes.append(helper.make_node("Identity", [self.names[value]], [name], name=name))
        return self

    def call(self, call: Call) -> None:
        """Write one call. Raises CannotExport."""
        if call.kind is not Kind.LAYER or not isinstance(call.layer, Layer):
            raise CannotExport("draws random numbers also in inference, or is a loss")
        title = self.layer_names.get(type(call.layer), call.title)
        writers = self.registry.of_kind(KIND)
        if title not in writers:
            raise CannotExport(
                f"no writer for ONNX is registered for {title!r}. A plugin adds one by the hook "
                f"graphnet_{KIND}."
            )
        to = Nodes(call.name, torch.float32, self.opset)
        write = writers[title].value().write
        ports = self.ports(call)
        arguments, starred = _arguments(write, title, ports)
        made = write(call.layer, to, *arguments, *starred)
        results = (made,) if isinstance(made, str) else tuple(made)
        outputs = call.results[: len(call.layer.outputs)]  # what else forward saves is not exported
        for value, name in zip(outputs, results, strict=True):
            if isinstance(value, str):
                self.names[value] = name
        self.nodes += [
            helper.make_node(one.operator, one.inputs, one.outputs, one.name, **one.attributes)
            for one in to.operations
        ]
        self.constants += map(_initializer, to.constants, to.constants.values())

    def ports(self, call: Call) -> dict[str, Port | tuple[Port, ...] | None]:
        """The tensors of a call, by the names of the method's arguments."""
        assert isinstance(call.layer, Layer)
        signature = call.layer.signature
        names = signature.inference if call.method == "inference" else signature.forward
        return {
            name: self.port(arg)
            for name, arg in zip(names, call.args, strict=True)
            if name not in ("specs", "key")
        }

    def port(self, arg: Arg) -> Port | tuple[Port, ...] | None:
        """The port of an argument; a tuple of them for `*xs`, None for an absent parameter."""
        if isinstance(arg, tuple):
            return tuple(self.single(name) for name in arg)
        return self.single(arg) if isinstance(arg, str) else None

    def single(self, name: str) -> Port:
        """The port of one value."""
        spec = self.graph.values[name].spec
        return Port(
            self.names.get(name, name), self.sizes.shape(name), spec.dtype, self.sizes.depends(name)
        )


def _arguments(
    write: Any, title: str, ports: Mapping[str, Port | tuple[Port, ...] | None]
) -> tuple[list[Any], tuple[Any, ...]]:
    """The arguments of a writer after `layer` and `to`, and those of its `*xs`.

    Raises ContractError if it names something that the layer does not have.
    """
    arguments: list[Any] = []
    starred: tuple[Any, ...] = ()
    for parameter in list(inspect.signature(write).parameters.values())[2:]:
        if parameter.name not in ports:
            raise ContractError(
                f"the ONNX writer of {title!r} asks for {parameter.name!r}; the layer has "
                f"{', '.join(ports)}"
            )
        found = ports[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            assert isinstance(found, tuple)
            starred = found
        else:
            arguments.append(found)
    return arguments, starred


def _input_name(value: str) -> str:
    """The name of an input in the file; the graph marks inputs with "$"."""
    return value.lstrip("$")


def _info(value: str, name: str, sizes: Sizes) -> onnx.ValueInfoProto:
    spec = sizes.graph.values[value].spec
    kind = helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=spec.dtype).numpy().dtype)
    return helper.make_tensor_value_info(name, kind, sizes.named_shape(value))


def _initializer(name: str, tensor: Tensor) -> onnx.TensorProto:
    return numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name)


def _texts(infos: Any) -> dict[str, str]:
    """Name -> sizes as text, such as "batch x 3 x height x width"."""
    return {
        info.name: " x ".join(
            axis.dim_param or (str(axis.dim_value) if axis.HasField("dim_value") else "?")
            for axis in info.type.tensor_type.shape.dim
        )
        for info in infos
    }
