"""Assemble: the nodes, the weights and the layers of a model from a trace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphnet.bridges.opaque import OpaqueCall, opaque_call, opaque_layer
from graphnet.bridges.operators import find_node
from graphnet.bridges.trace import Operation, Trace
from graphnet.description import InputDescription, ModelDescription, NodeDescription
from graphnet.errors import InputError
from graphnet.sdk import Entry, Found, Node, Operand, Plugin, Registry, dtype_name, nodes_of, thawed


@dataclass(frozen=True)
class Assembled:
    """A traced module as the parts of a model.

    Args:
        description: the model's description.
        weights: the model's weights by name, the module's tensors.
        names: the name of a tensor of the module -> the name of the weight.
        opaque: the ids of the nodes that run an operator of torch -> the operator and its submodule.
        registry: the layers that the description names.
    """

    description: ModelDescription
    weights: Mapping[str, Tensor]
    names: Mapping[str, str]
    opaque: Mapping[str, str]
    registry: Registry


def assemble(
    module: torch.nn.Module,
    traced: Trace,
    *,
    name: str,
    registry: Registry,
) -> Assembled:
    """Make a model of a trace.

    Args:
        module: the module that was traced.
        traced: its trace.
        name: the model's name.
        registry: the rows of operators, and the layers that nodes may use. An operator whose row names
            another layer becomes opaque.

    Raises:
        InputError: the model would be no description: a batch of fixed size, an output that is an input.
    """
    assembly = _Assembly(module, traced, registry)
    found = {o.name: assembly.find(o) for o in traced.operations}
    _leave_out_conflicts(traced, found)
    for operation in traced.operations:
        assembly.add(operation, found[operation.name])
    outputs = tuple(assembly.output(operand) for operand in traced.outputs)
    for given in traced.inputs:
        if not any(f"${given.name}" in (node.inputs or ()) for node in assembly.nodes):
            raise InputError(
                f"from_torch: the module's outputs do not depend on the input {given.name!r}. Leave it out, "
                f"with a module around this one."
            )
    description = ModelDescription(
        layers=tuple(assembly.nodes), name=name, inputs=_described(traced), outputs=outputs
    )
    return Assembled(
        description, assembly.weights, assembly.names, assembly.opaque, assembly.registry
    )


def _described(traced: Trace) -> dict[str, InputDescription]:
    """What the trace says of the inputs. Raises InputError for a batch of a fixed size."""
    free = [s for x in traced.inputs for s in x.shape[1:] if not isinstance(s, int)]
    named = {size: f"size_{i}" for i, size in enumerate(dict.fromkeys(free), start=1)}
    described: dict[str, InputDescription] = {}
    for x in traced.inputs:
        if not x.shape or isinstance(x.shape[0], int):
            raise InputError(
                f"from_torch: the module takes the input {x.name!r} of the shape {x.shape} only; axis 0 must "
                f"be a batch of any size. Its code states that number or branches on it; use x.shape[0]."
            )
        after = x.shape[1:]
        if len(x.shape) == 4 and x.dtype.is_floating_point and len(set(free)) == len(free):
            channels, height, width = (s if isinstance(s, int) else None for s in after)
            described[x.name] = InputDescription(channels=channels, height=height, width=width)
        else:
            shape = tuple(s if isinstance(s, int) else named[s] for s in after)
            dtype = None if x.dtype.is_floating_point else dtype_name(x.dtype)
            described[x.name] = InputDescription(shape=shape, dtype=dtype)
    return described


def _leave_out_conflicts(traced: Trace, found: dict[str, Found]) -> None:
    """Take away the nodes whose parameters others take in another way: only equal nodes can share them."""
    while True:
        uses: dict[str, set[Any]] = {}
        owners: dict[str, set[str]] = {}  # a tensor of the module -> the operations that own it
        for operation in traced.operations:
            node = found[operation.name]
            read = (
                _operands(operation.arguments)
                if node is None
                else [x for n in nodes_of(node) for x in n.inputs if isinstance(x, Operand)]
            )
            for operand in read:
                if operand.is_slot:
                    uses.setdefault(operand.name, set()).add("read")
            for part in nodes_of(node):
                key = part.layer, repr(dict(part.fields)), repr(part.owned())
                for operand in part.owned().values():
                    uses.setdefault(operand.name, set()).add(key)
                    owners.setdefault(operand.name, set()).add(operation.name)
        wrong = {n for name, keys in uses.items() if len(keys) > 1 for n in owners.get(name, ())}
        if not wrong:
            return
        found.update(dict.fromkeys(wrong))


class _Assembly:
    """Collects the nodes of a model, and what they own."""

    def __init__(self, module: torch.nn.Module, traced: Trace, registry: Registry) -> None:
        self.module = module
        self.traced = traced
        self.registry = registry
        self.nodes: list[NodeDescription] = []
        self.weights: dict[str, Tensor] = {}
        self.names: dict[str, str] = {}
        self.opaque: dict[str, str] = {}
        self._references: dict[tuple[str, int], str] = {}
        self._numbers: Counter[str] = Counter()
        self._ids = {given.name for given in traced.inputs}
        self._owners: dict[str, str] = {}  # a tensor of the module -> the node that owns it
        self._layers: dict[OpaqueCall, Entry] = {}

    def find(self, operation: Operation) -> Found:
        """What the row of an operation returns, if the registry has its layers."""
        found = find_node(operation, self.registry.operators)
        known = all(part.layer in self.registry.layers for part in nodes_of(found))
        return found if known else None

    def add(self, operation: Operation, found: Found) -> None:
        """Add what was found for an operation; an opaque node for None."""
        if isinstance(found, Operand):
            for output in operation.outputs:
                self._references[output.name, output.output] = self._reference(found)
            return
        if isinstance(found, Node):
            found = (found,)
        if found is not None:
            made: dict[str, str] = {}
            references = [self._node(n, self._base(operation, n.layer), made) for n in found]
        else:
            call, inputs, owned = opaque_call(operation, self.traced)
            if call not in self._layers:
                self._layers[call] = self._register(call, inputs, owned)
            entry = self._layers[call]
            node = Node(entry.name, inputs, slots=owned)
            id = self._node(node, self._base(operation, call.kind), {})
            self.opaque[id] = operation.title
            references = [id, *(f"{id}.{output}" for output in entry.value.outputs[1:])]
        for output in operation.outputs:
            self._references[output.name, output.output] = references[output.output]

    def output(self, operand: Operand) -> str:
        """The reference of an output of the module. Raises InputError if it is an input."""
        if operand.kind == "input":
            raise InputError(
                f"from_torch: the module returns its input {operand.name!r} unchanged. Leave that output "
                f"out, with a module around this one."
            )
        return self._reference(operand)

    def _node(self, node: Node, base: str, made: dict[str, str]) -> str:
        """Add a node, and those that it reads, unless they are `made` already; return the reference to it."""
        key = repr(replace(node, output=""))
        if key not in made:
            made[key] = self._new_node(node, base, made)
        return f"{made[key]}.{node.output}" if node.output else made[key]

    def _new_node(self, node: Node, base: str, made: dict[str, str]) -> str:
        """Add a node, and those that it reads; return its id."""
        inputs = tuple(
            self._node(x, f"{base}_{x.layer}", made) if isinstance(x, Node) else self._reference(x)
            for x in node.inputs
        )
        id = self._id(base)
        owned = node.owned()
        owner = next((self._owners[o.name] for o in owned.values() if o.name in self._owners), None)
        for slot, operand in owned.items():
            self._own(operand, owner or id, slot)
        self._describe(id, node.layer, thawed(node.fields), inputs, share=owner)
        return id

    def _describe(
        self,
        id: str,
        layer: str,
        fields: dict[str, Any],
        inputs: tuple[str, ...],
        *,
        share: str | None = None,
    ) -> None:
        place = ("layers", len(self.nodes))
        self.nodes.append(
            NodeDescription(layer, fields, id=id, inputs=inputs, share=share, place=place)
        )

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
        tensors = {slot: self._tensor(operand) for slot, operand in owned.items()}
        layer = opaque_layer(call, name, inputs, tensors, self.traced)
        entry = Entry(name, type(layer), call.version, _PLUGIN)
        plugins = self.registry.plugins
        self.registry = replace(
            self.registry,
            layers={**self.registry.layers, name: entry},
            plugins=plugins if _PLUGIN in plugins else (*plugins, _PLUGIN),
        )
        return entry

    def _tensor(self, operand: Operand) -> Tensor:
        tensor = self.traced.tensors[operand.name]
        return torch.nn.Parameter(tensor) if operand.trained else tensor

    def _base(self, operation: Operation, layer: str) -> str:
        """The name of a node: the submodule's path, and the layer unless the submodule is one of torch's."""
        path = operation.path
        owner = self.module.get_submodule(path)
        plain = type(owner).__module__.startswith("torch.nn.modules.") and not any(owner.children())
        return path if path and plain else ".".join(part for part in (path, layer) if part)

    def _id(self, base: str) -> str:
        name = re.sub(r"\W", "_", base)
        name = f"_{name}" if name[0].isdigit() else name
        while True:
            self._numbers[name] += 1
            number = self._numbers[name]
            found = name if number == 1 else f"{name}_{number}"
            if found not in self._ids:
                self._ids.add(found)
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
            name = "module.parameter.get" if operand.trained else "module.buffer.get"
            node = self.registry.operators[name].value(operand, self.traced.inputs[0])
            self._node(node, operand.name, {})
        return self._owners[operand.name]


_PLUGIN = Plugin("from_torch", "from_torch", "local")


def _operands(value: Any) -> list[Operand]:
    match value:
        case Operand():
            return [value]
        case tuple():
            return [found for item in value for found in _operands(item)]
        case Mapping():
            return [found for item in value.values() for found in _operands(item)]
    return []
