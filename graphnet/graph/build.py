"""Build: make the forward graph of an expanded description; shapes come from runs on meta tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphnet.description import Expanded, FlatNode, Reference
from graphnet.errors import GraphError, GraphnetError, blame
from graphnet.graph.ir import SEED, SLOTS, STEP, Arg, Call, Const, Graph, Kind, Value, spec_of
from graphnet.graph.observe import KEY_SPEC, Bound, Ports, bind_inputs, observe, resolve_view
from graphnet.sdk import Key, Layer, Loss, Spec, node_constant


def build(network: Expanded, *, inputs: Sequence[Spec], dtype: torch.dtype) -> Graph:
    """The forward graph of an expanded model for inputs of these shapes.

    Args:
        network: the model, as `expand` returns it.
        inputs: the specs of its inputs, in the order in which it names them; `check_shapes` has checked them.
        dtype: the dtype of the parameters.

    Raises:
        GraphError: shapes do not fit; the message names every node where they do not.
    """
    builder = GraphBuilder(dtype)
    builder.inputs(network, inputs)
    for node in network.nodes:
        builder.node(node)
    return builder.graph(network)


class GraphBuilder:
    """Adds calls one by one; each is run on meta tensors to find the specs of its results."""

    def __init__(self, dtype: torch.dtype, graph: Graph | None = None) -> None:
        self.dtype = dtype
        self.calls: dict[str, Call] = dict(graph.calls) if graph else {}
        self.values: dict[str, Value] = dict(graph.values) if graph else {}
        self.input_names: tuple[str, ...] = graph.inputs if graph else ()
        self.results: dict[str, dict[str, str]] = {}  # node -> output name -> value
        self.problems: list[str] = []

    def inputs(self, network: Expanded, specs: Sequence[Spec]) -> None:
        """Add the inputs of the network."""
        for name, spec in zip(network.inputs, specs, strict=True):
            self.values[f"${name}"] = Value(f"${name}", spec, Kind.INPUT)
            self.results[f"${name}"] = {"": f"${name}"}
        self.input_names = tuple(f"${name}" for name in network.inputs)

    def node(self, node: FlatNode) -> None:
        """Add the call of a node; a fault is added to `problems`."""
        inputs = [self.lookup(reference) for reference in node.inputs]
        known = [name for name in inputs if name is not None]
        if len(known) < len(inputs):
            return  # the node that makes one of its inputs failed, and is in `problems`
        kind = Kind.LOSS if isinstance(node.layer, Loss) else Kind.LAYER
        try:
            self.call(
                node.id,
                node.layer,
                node.layer_name,
                known,
                kind=kind,
                owner=node.share,
                where=node.where,
            )
        except GraphnetError as error:
            self.problems.append(str(error))

    def lookup(self, reference: Reference) -> str | None:
        """Return the value that a reference means; None if its node could not be built."""
        outputs = self.results.get(reference.node)
        if outputs is None:
            return None
        if reference.output is None:
            return next(iter(outputs.values()))
        return outputs[reference.output]

    def unique(self, name: str) -> str:
        """The name, with a number appended if a call has the name already."""
        found, number = name, 1
        while found in self.calls:
            number += 1
            found = f"{name}_{number}"
        return found

    def call(
        self,
        name: str,
        layer: Layer,
        title: str,
        inputs: Sequence[str],
        *,
        kind: Kind,
        owner: str,
        where: str = "",
    ) -> list[str]:
        """Add one call of `forward`; returns the names of its outputs. `owner` owns its parameters."""
        at = f"{f'{where}: ' if where else ''}node {name!r} ({title}): "
        feeding = ", ".join(f"{i} ({self.values[i].spec})" for i in inputs)
        with blame(at, "forward", after=f". Inputs: {feeding}."):
            ports = bind_inputs(layer, [self.values[i].spec for i in inputs], self.dtype)
            device = self.values[inputs[0]].spec.device if inputs else torch.device("cpu")
            bound: dict[str, Arg] = {}
            if layer.signature.variadic:
                bound[layer.signature.variadic] = tuple(inputs)
            else:
                bound.update(zip(ports.inputs, inputs, strict=True))
            bound.update(self.slots(ports, owner, device, layer))
            observed = observe(layer, "forward", ports.specs)
        specs = Const(self.specs(bound))
        if "key" in layer.signature.forward:
            bound["key"] = self.key(name)
        args = tuple(bound.get(argument, specs) for argument in layer.signature.forward)
        result_names = layer.outputs + layer.saves + tuple(f"{s}_next" for s in layer.updates)
        results = tuple(f"{name}.{result}" for result in result_names)
        for result, port, seen in zip(results, result_names, observed, strict=True):
            self.values[result] = Value(
                result,
                seen.spec.on(device),
                kind,
                view_of=resolve_view(bound, seen.view_of),
                node=name,
                port=port,
            )
        self.calls[name] = Call(name, kind, layer, "forward", args, results, title, name, where)
        self.results[name] = dict(zip(layer.outputs, results, strict=False))
        return list(results[: len(layer.outputs)])

    def slots(self, ports: Ports, owner: str, device: torch.device, layer: Layer) -> dict[str, Arg]:
        """Return the parameters and states of a node by argument; add those that `owner` does not have yet.

        Raises GraphError if a shared parameter has another shape.
        """
        bound: dict[str, Arg] = {}
        for name, spec in (*ports.parameters.items(), *ports.states.items()):
            if spec is None:
                bound[name] = Const(None)
                continue
            slot = f"{owner}.{name}"
            shape = ports.specs[name]
            assert isinstance(shape, Spec)
            kind = Kind.PARAMETER if name in ports.parameters else Kind.STATE
            if slot not in self.values:
                self.values[slot] = Value(
                    slot,
                    shape.on(device),
                    kind,
                    initializer=spec.initializer,
                    node=owner,
                    port=name,
                )
            elif self.values[slot].spec != shape.on(device) or self.values[slot].kind not in SLOTS:
                raise GraphError(
                    f"shares {slot!r}, which is {self.values[slot].spec}, but needs {shape}; "
                    f"only layers of equal shapes can share parameters."
                )
            bound[name] = slot
        return bound

    def specs(self, bound: Mapping[str, Arg]) -> dict[str, Bound]:
        """Return the specs of the values that the arguments are bound to."""
        return {name: spec_of(arg, self.values) for name, arg in bound.items()}

    def key(self, node: str) -> str:
        """Add the call that makes a node's random key; returns the name of the key."""
        device = next(iter(self.values.values())).spec.device
        for scalar in (SEED, STEP):
            if scalar not in self.values:
                self.values[scalar] = Value(scalar, Spec((), torch.int64, device), Kind.SCALAR)
        name = f"{node}:key"
        if name not in self.calls:
            layer = Key(constant=node_constant(node))
            port = f"{node.rpartition('.')[2]}:key"  # the last part of the node's path
            self.values[name] = Value(name, KEY_SPEC.on(device), Kind.KEY, port=port)
            self.calls[name] = Call(
                name, Kind.KEY, layer, "forward", (SEED, STEP), (name,), "key", node
            )
        return name

    def graph(self, network: Expanded) -> Graph:
        """Return the graph with the outputs of the network. Raises GraphError with all `problems`."""
        if self.problems:
            raise GraphError("\n".join(self.problems))
        outputs = {name: self.lookup(reference) for name, reference in network.outputs.items()}
        return Graph(
            calls=self.calls,
            values=self.values,
            inputs=self.input_names,
            outputs=tuple(str(value) for value in outputs.values()),
            output_names=tuple(outputs),
        )
