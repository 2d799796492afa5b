"""from_torch: trace a torch module into a model of graphnet's layers, with its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from graphnet.bridges.opaque import OpaqueCall, opaque_call, opaque_layer
from graphnet.bridges.operators import ROWS, Node, Row, find_node
from graphnet.bridges.trace import Operand, Operation, Trace, trace
from graphnet.description import InputDescription, ModelDescription, NodeDescription
from graphnet.errors import InputError
from graphnet.model import Model
from graphnet.sdk import Entry, Registry, default_registry
from graphnet.sdk.registry import Plugin


class TracedModel(Model):
    """The Model that `from_torch` returns. It also knows the names that its weights have in the torch module.

    Attributes:
        torch_names: the name of a parameter or buffer of the module -> the name of the model's weight. Several
            names may have one weight, where the module shares a parameter.
        opaque: the ids of the nodes that run an operator of torch, each with the operator and its submodule.
        frozen: the weights whose parameters had requires_grad False, by the model's names.

    >>> model = from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), (2, 3))
    >>> dict(model.torch_names)
    {'0.weight': '_0.weight', '0.bias': '_0.bias'}
    """

    torch_names: Mapping[str, str]
    opaque: Mapping[str, str]
    frozen: tuple[str, ...]
    _unused: Mapping[str, Tensor]

    def state_dict(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return a state_dict for the torch module: module.load_state_dict(model.state_dict()).

        Args:
            weights: the model's weights by name, such as `program.model_weights` after a training; None takes
                `model.weights`.

        Buffers that no operator reads, such as num_batches_tracked, have the values that they had in the module.
        """
        given = self.weights if weights is None else weights
        assert given is not None
        named = {path: given[name].detach().clone() for path, name in self.torch_names.items()}
        return {**{path: tensor.clone() for path, tensor in self._unused.items()}, **named}

    def with_state_dict(self, state: Mapping[str, Tensor]) -> Self:
        """Return a model of the same description with the weights of a state_dict of the torch module.

        Raises:
            InputError: the state_dict lacks a name.
        """
        missing = [path for path in self.torch_names if path not in state]
        if missing:
            raise InputError(f"with_state_dict: the state_dict has no {missing[0]!r}")
        return self.with_weights({name: state[path] for path, name in self.torch_names.items()})


def from_torch(
    module: torch.nn.Module,
    *inputs: Sequence[int] | Tensor,
    name: str | None = None,
    operators: Mapping[str, Row] | None = None,
    registry: Registry | None = None,
) -> TracedModel:
    """Trace a torch module into a model of graphnet's layers, which starts from copies of the module's tensors.

    torch.export lists the operators that the module runs, in train mode and in eval mode. Each operator for
    which there is a layer becomes a node with that layer. Every other one becomes an opaque node: its layer runs
    torch's operator, and its backward torch's derivative of it. The model compiles, trains and predicts like any
    other; the plan uses autograd in opaque nodes only.

    - Training runs what the module does in train mode, prediction what it does in eval mode, whatever mode the
      module is in.
    - Batch and image sizes may be any that the module can take. A size that cannot change, since a weight depends
      on it or the module's code branches on it, is stated in the description.
    - `model.torch_names` maps the names of parameters and buffers to the names of the model's weights.
    - A model without opaque nodes is saved and loaded like any other, without torch's module. For one with opaque
      nodes, the registry is needed: Model.load(path, registry=model.registry).

    Args:
        module: the module, on any device.
        inputs: an example of each input of forward: a shape, or a tensor where the input holds integers.
        name: the model's name; None takes the name of the module's class.
        operators: rows for more operators, such as {"aten.erf.default": row}, where row takes the operator's
            arguments by name and returns a graphnet.bridges.Node.
        registry: the layers that nodes may use; None takes those of the installed plugins.

    Raises:
        InputError: there is no example input, or the module cannot be traced; the message says why.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    >>> model = from_torch(net, (1, 3, 16, 16))
    >>> x = torch.rand(2, 3, 9, 7)
    >>> torch.allclose(model.predict(x), net(x), atol=1e-6)
    True
    """
    if not inputs:
        raise InputError("from_torch: give an example of each input, a shape or a tensor")
    traced = trace(module, _examples(module, inputs))
    assembly = _Assembly(
        module, traced, {**ROWS, **(operators or {})}, registry or default_registry()
    )
    description = ModelDescription(
        layers=tuple(assembly.nodes),
        name=name or type(module).__name__,
        inputs=assembly.inputs(),
        outputs=assembly.outputs,
    )
    model = TracedModel(description, weights=assembly.weights, registry=assembly.registry)
    same = _same_tensors(module)
    names = {path: assembly.names[same[path]] for path in same if same[path] in assembly.names}
    model.torch_names = names
    model.opaque = assembly.opaque
    model.frozen = tuple(
        assembly.names[path]
        for path, parameter in module.named_parameters()
        if not parameter.requires_grad and path in assembly.names
    )
    model._unused = {
        path: tensor.detach().clone()
        for path, tensor in module.state_dict().items()
        if path not in names
    }
    return model


def _examples(module: torch.nn.Module, inputs: Sequence[Sequence[int] | Tensor]) -> list[Tensor]:
    """An example of each input, on the module's device and in its dtype."""
    floating = [t for t in module.state_dict().values() if t.is_floating_point()]
    dtype = floating[0].dtype if floating else torch.get_default_dtype()
    device = floating[0].device if floating else torch.device("cpu")
    found = []
    for given in inputs:
        x = given if isinstance(given, Tensor) else torch.rand(tuple(given))
        found.append(x.detach().to(device, dtype if x.is_floating_point() else None).clone())
    return found


def _same_tensors(module: torch.nn.Module) -> dict[str, str]:
    """The name of each tensor of a module -> the first name of the same tensor."""
    first: dict[int, str] = {}
    found = {}
    for path, tensor in module.state_dict(keep_vars=True).items():
        found[path] = first.setdefault(id(tensor), path)
    return found


class _Assembly:
    """Makes the nodes of a model from a trace."""

    def __init__(
        self,
        module: torch.nn.Module,
        traced: Trace,
        rows: Mapping[str, Row],
        registry: Registry,
    ) -> None:
        self.module = module
        self.traced = traced
        self.registry = registry
        self.nodes: list[NodeDescription] = []
        self.weights: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}  # of the module's tensors -> of weights
        self.opaque: dict[str, str] = {}
        self._references: dict[tuple[str, int], str] = {}
        self._ids: Counter[str] = Counter()
        self._taken = {given.name for given in traced.inputs}
        self._owners: dict[str, str] = {}  # a tensor of the module -> the node that owns it
        self._layers: dict[OpaqueCall, Entry] = {}
        self._previous = ""
        found = {o.name: self._find(o, rows) for o in traced.operations}
        self._drop_conflicts(found)
        for operation in traced.operations:
            self._add(operation, found[operation.name])
        self.outputs = tuple(self._output(operand) for operand in traced.outputs)

    def inputs(self) -> dict[str, InputDescription]:
        """What the trace says of the inputs' sizes. Raises InputError for what a description cannot say."""
        described = {}
        for operand in self.traced.inputs:
            batch, *sizes = operand.shape or (None,)
            if isinstance(batch, int):
                raise InputError(
                    f"from_torch: the module takes the input {operand.name!r} only with the size {batch} on "
                    f"axis 0. Its code states that number, or branches on it; use x.shape[0] and -1 in its place."
                )
            fixed = dict(zip(("channels", "height", "width"), sizes, strict=False))
            described[operand.name] = InputDescription(
                **{axis: size for axis, size in fixed.items() if isinstance(size, int)}
            )
        return described

    def _find(self, operation: Operation, rows: Mapping[str, Row]) -> Node | Operand | None:
        found = find_node(operation, rows)
        if isinstance(found, Node) and found.layer not in self.registry.layers:
            return None
        return found

    def _drop_conflicts(self, found: dict[str, Node | Operand | None]) -> None:
        """Make nodes opaque whose parameters another node takes in another way."""
        while True:
            uses: dict[str, set[Any]] = {}
            for name, node in found.items():
                if isinstance(node, Node):
                    key = node.layer, repr(dict(node.fields)), repr(dict(node.slots))
                    for operand in node.slots.values():
                        if operand is not None:
                            uses.setdefault(operand.name, set()).add(key)
                    for operand in node.inputs:
                        if operand.is_slot:
                            uses.setdefault(operand.name, set()).add("input")
                elif node is None:
                    operation = next(o for o in self.traced.operations if o.name == name)
                    for operand in _operands(operation.arguments):
                        uses.setdefault(operand.name, set()).add("input")
            shared = {name for name, keys in uses.items() if len(keys) > 1}
            wrong = [
                name
                for name, node in found.items()
                if isinstance(node, Node)
                and any(s is not None and s.name in shared for s in node.slots.values())
            ]
            if not wrong:
                return
            for name in wrong:
                found[name] = None

    def _add(self, operation: Operation, found: Node | Operand | None) -> None:
        if isinstance(found, Operand):
            for output in operation.outputs:
                self._references[output.name, output.output] = self._reference(found)
            return
        if found is not None:
            outputs = self.registry.layers[found.layer].value.outputs
            base = self._path_of(operation, found.layer)
            slots = {slot: o for slot, o in found.slots.items() if o is not None}
            self._node(operation, base, found, slots, outputs)
            return
        call, inputs, owned = opaque_call(operation, self.traced)
        if call not in self._layers:
            self._layers[call] = self._register(call, inputs, owned)
        entry = self._layers[call]
        node = Node(entry.name, inputs)
        base = self._path_of(operation, call.kind)
        id = self._node(operation, base, node, owned, entry.value.outputs)
        self.opaque[id] = operation.title

    def _node(
        self,
        operation: Operation,
        base: str,
        node: Node,
        slots: Mapping[str, Operand],
        outputs: tuple[str, ...],
    ) -> str:
        inputs = tuple(self._reference(operand) for operand in node.inputs)
        id = self._id(base)
        owner = next((self._owners[o.name] for o in slots.values() if o.name in self._owners), None)
        for slot, operand in slots.items():
            self._own(operand, owner or id, slot)
        self.nodes.append(
            NodeDescription(
                node.layer,
                _plain(node.fields),
                id=id,
                inputs=inputs,
                share=owner,
                place=("layers", len(self.nodes)),
            )
        )
        for output in operation.outputs:
            number = output.output
            self._references[output.name, number] = id if not number else f"{id}.{outputs[number]}"
        return id

    def _own(self, operand: Operand, owner: str, slot: str) -> None:
        weight = f"{owner}.{slot}"
        self._owners[operand.name] = owner
        self.names[operand.name] = weight
        self.weights[weight] = self.traced.tensors[operand.name]

    def _register(
        self, call: OpaqueCall, inputs: tuple[Operand, ...], owned: Mapping[str, Operand]
    ) -> Entry:
        same = sum(other.kind == call.kind for other in self._layers)
        name = f"torch/{call.kind}" if not same else f"torch/{call.kind}_{same + 1}"
        tensors = {slot: self.traced.tensors[operand.name] for slot, operand in owned.items()}
        layer = opaque_layer(call, name, inputs, tensors, self.traced)
        entry = Entry(name, type(layer), call.version, _PLUGIN)
        plugins = self.registry.plugins
        self.registry = replace(
            self.registry,
            layers={**self.registry.layers, name: entry},
            plugins=plugins if _PLUGIN in plugins else (*plugins, _PLUGIN),
        )
        return entry

    def _path_of(self, operation: Operation, layer: str) -> str:
        """The name of a node: the path of the submodule, and the layer unless the submodule is one of torch's."""
        path = operation.path
        owner = self.module.get_submodule(path)
        plain = type(owner).__module__.startswith("torch.nn.modules.") and not any(owner.children())
        return path if path and plain else ".".join(part for part in (path, layer) if part)

    def _id(self, base: str) -> str:
        name = re.sub(r"\W", "_", base)
        name = f"_{name}" if name[0].isdigit() else name
        while True:
            self._ids[name] += 1
            number = self._ids[name]
            found = name if number == 1 else f"{name}_{number}"
            if found not in self._taken:
                self._taken.add(found)
                return found

    def _reference(self, operand: Operand) -> str:
        if operand.kind == "input":
            return f"${operand.name}"
        if operand.is_slot:
            return self._slot_node(operand)
        return self._references[operand.name, operand.output]

    def _slot_node(self, operand: Operand) -> str:
        """The node that returns a parameter or buffer, for the nodes that read it as an input."""
        if operand.name not in self._owners:
            id = self._id(operand.name)
            self._own(operand, id, "value")
            fields: dict[str, Any] = {"shape": list(operand.shape)}
            if not operand.dtype.is_floating_point:
                fields["dtype"] = str(operand.dtype).removeprefix("torch.")
            self.nodes.append(
                NodeDescription(
                    operand.kind,
                    fields,
                    id=id,
                    inputs=(f"${self.traced.inputs[0].name}",),
                    place=("layers", len(self.nodes)),
                )
            )
        return self._owners[operand.name]

    def _output(self, operand: Operand) -> str:
        reference = self._reference(operand)
        if reference.startswith("$"):
            raise InputError(
                f"from_torch: the module returns its input {operand.name!r} unchanged. Leave that output out, with "
                f"a module around this one."
            )
        return reference


_PLUGIN = Plugin("from_torch", "from_torch", "0")


def _operands(value: Any) -> list[Operand]:
    match value:
        case Operand():
            return [value]
        case tuple():
            return [found for item in value for found in _operands(item)]
        case Mapping():
            return [found for item in value.values() for found in _operands(item)]
    return []


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as a model file states them: lists in the place of tuples."""
    return {
        name: list(value) if isinstance(value, (tuple, list)) else value
        for name, value in fields.items()
    }
