"""Eager: make a model from modules of graphnet.nn, and modules from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import torch

from graphnet.description import FlatNode, Reference, expand, parse
from graphnet.errors import InputError
from graphnet.graph import Const, Graph, Kind
from graphnet.model.model import Model
from graphnet.model.slots import set_up
from graphnet.nn import Module, Network, Sequential, Tree, described, module_of
from graphnet.sdk import Registry, check_dtype, registry_or_default
from graphnet.system import require


def from_nn(
    module: Tree,
    *,
    name: str = "model",
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
    registry: Registry | None = None,
) -> Model:
    """Make a model from modules of graphnet.nn, with copies of their weights.

    A name such as "encoder" is the id of its node; a module with a number gets its layer's name and a number.
    A module that occurs more than once becomes nodes that share its parameters (`share`).

    Args:
        module: a Sequential, a Network, or one module.
        name: the name of the model.
        inputs: the description of each input by its name, as in a model file: {"input": {"channels": 3}}.
        registry: the layers of the model; None takes those of the installed plugins.

    Raises:
        InputError: a module has no parameters yet, is a loss, or is of a layer that no plugin registers.
        DescriptionError: `inputs` are wrong.

    >>> from graphnet import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    >>> x = torch.ones(1, 3, 4, 4)
    >>> torch.equal(from_nn(net).predict(x), net.predict(x))
    True
    """
    registry = registry_or_default(registry)
    require(inputs, (Mapping, NoneType), "from_nn: inputs", "the description of each input by name")
    description, weights = described(module, registry, name=name)
    if inputs is not None:
        data = description.to_data()
        data.pop("input", None)
        in_order = dict.fromkeys(description.inputs)
        description = parse({**data, "inputs": {**in_order, **inputs}})
    return Model(description, weights=weights, registry=registry)


def to_nn(
    model: Model,
    *inputs: Sequence[int],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Module:
    """Make modules of graphnet.nn from a model, with copies of its weights, or weights drawn from its seed.

    Their names are the ids of the model's nodes, so that `load_state_dict(model.weights)` fits. Nodes that
    share parameters become one module, which occurs more than once.

    Args:
        model: the model.
        inputs: the shape of each input; the modules take other shapes too.
        dtype, device: those of the parameters; None is torch's default dtype.

    Returns:
        A Sequential if each node reads the node before it, otherwise a Network.

    Raises:
        InputError: the shapes are missing, or `dtype` is not of floating point.
        GraphError: the shapes do not fit the network.

    >>> model = Model({"layers": [{"conv2d": {"out_channels": 8, "kernel_size": 1}}, "relu"]})
    >>> to_nn(model, (1, 3, 4, 4))
    Sequential(
      (conv2d_1): Conv2d(out_channels=8, kernel_size=(1, 1))
      (relu_1): ReLU()
    )
    """
    require(model, Model, "to_nn", "a Model")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    check_dtype(dtype, "to_nn: dtype")
    if not inputs:
        raise InputError("to_nn(model, (1, 3, 32, 32)): give the shape of each input")
    network = expand(model.description, model.registry)
    graph = model.graph(*inputs, device=device, dtype=dtype)
    made = _modules(model, graph, network.nodes, dtype=dtype, device=device)
    reads = {node.id: tuple(_text(ref) for ref in node.inputs) for node in network.nodes}
    outputs = tuple(_text(ref) for ref in network.outputs.values())
    before = tuple(f"${name}" for name in network.inputs)
    chain = True
    for name, module in made.items():
        chain = chain and reads[name] == before
        before = (name, *(f"{name}.{output}" for output in module.layer.outputs[1:]))
    if chain and outputs == before:
        return Sequential(made)
    nodes = {name: (module, *reads[name]) for name, module in made.items()}
    return Network(nodes, inputs=tuple(network.inputs), outputs=outputs)


def _modules(
    model: Model,
    graph: Graph,
    nodes: Sequence[FlatNode],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, Module]:
    """A module for each node; nodes that share parameters have the same one."""
    values = [graph.values[name] for name in graph.sources(Kind.PARAMETER, Kind.STATE)]
    tensors = set_up(values, seed=model.seed, given=model.weights)
    made: dict[str, Module] = {}
    for node in sorted(
        nodes, key=lambda node: node.share != node.id
    ):  # those with parameters first
        owner = made.get(node.share)
        if owner is not None and owner.layer == node.layer:
            made[node.id] = owner
            continue
        ports = graph.calls[node.id].ports()
        slots = {
            port: arg for port, arg in ports.items() if isinstance(arg, str) and arg in tensors
        }
        names = [port for port in node.layer.signature.tensors if port not in slots]
        read = [ports[n] for n in names if not isinstance(ports[n], Const)]
        specs = [
            graph.values[one].spec
            for arg in read
            for one in (arg if isinstance(arg, tuple) else (arg,))
            if isinstance(one, str)
        ]
        given = {port: tensors[slot] for port, slot in slots.items()}
        options = {"dtype": dtype, "device": device, "specs": specs, "tensors": given}
        made[node.id] = module_of(node.layer, **options)
        if owner is not None:  # the same parameters, other fields
            made[node.id].tie(owner)
    return {node.id: made[node.id] for node in nodes}


def _text(reference: Reference) -> str:
    """A reference as a Network takes it."""
    return reference.node if reference.output is None else f"{reference.node}.{reference.output}"
