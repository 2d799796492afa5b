"""Capture: a plan's generated function as a graph of PyTorch operators, forward to update."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from graphnet.errors import LayerError
from graphnet.executors.eager import Function
from graphnet.plan import Plan


@dataclass(frozen=True, slots=True)
class Captured:
    """The operators of a plan. Its arguments are the plan's, then `constants`, tensors of the layers' own."""

    graph: GraphModule
    constants: tuple[Tensor, ...]


@torch.no_grad()
def capture(plan: Plan, examples: Sequence[Tensor]) -> Captured:
    """Run the plan's function on stand-ins for the examples and write down every operator.

    The examples give shapes, strides and dtypes; nothing is computed. Raises LayerError, which names
    the node and its layer's module, where a layer does what cannot be written down.
    """
    function = Function(plan)
    try:
        graph = make_fx(function.step, tracing_mode="fake")(*examples)
    except Exception as error:
        step = function.step_of(error)
        if step is None:
            raise
        call = step.call
        where = f"{call.where}: " if call.where else ""
        cause = str(error).strip().split("\n", 1)[0]
        raise LayerError(
            f"{where}node {call.node!r} ({call.title}, from {type(call.layer).__module__}): "
            f"{call.function} cannot be compiled: {type(error).__name__}: {cause}. Compiled code sees "
            f"tensors without values: use tensor operations only, read nothing back to the host, keep no "
            f"tensors outside the arguments. Or run it with the executor eager."
        ) from error
    return Captured(graph, _lift_constants(graph))


def _lift_constants(graph: GraphModule) -> tuple[Tensor, ...]:
    """Make arguments of the tensors that a graph holds: a compiled graph that is loaded has lost them."""
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    lifted: dict[str, Node] = {}
    constants: list[Tensor] = []
    for node in list(graph.graph.nodes):
        held = getattr(graph, node.target, None) if node.op == "get_attr" else None
        if not isinstance(held, Tensor):
            continue
        if node.target not in lifted:
            with graph.graph.inserting_after(last):
                last = lifted[node.target] = graph.graph.placeholder(f"constant_{len(constants)}")
            constants.append(held)
        node.replace_all_uses_with(lifted[node.target])
        graph.graph.erase_node(node)
    graph.recompile()
    return tuple(constants)


def fingerprint(captured: Captured) -> str:
    """A digest of all operators and their arguments: what the compiler will see."""
    return hashlib.sha256(captured.graph.code.encode()).hexdigest()[:32]


def to_text(graph: GraphModule) -> tuple[str, dict[str, Any]]:
    """A graph as the text of a function `forward(self, ...)`, and the names in it, for `from_text`.

    Modules stand there by their name. (A graph that is pickled runs its constructors, such as arange,
    when it is read.)
    """
    code = graph.graph.python_code("self")
    names = {
        name: f"module {value.__name__}" if isinstance(value, ModuleType) else value
        for name, value in code.globals.items()
    }
    return code.src, names


@torch.no_grad()
def from_text(text: str, names: Mapping[str, Any], examples: Sequence[Tensor]) -> GraphModule:
    """The graph that `to_text` wrote."""
    namespace: dict[str, Any] = {
        name: importlib.import_module(value.removeprefix("module "))
        if isinstance(value, str)
        else value
        for name, value in names.items()
    }
    exec(compile(text, "<graph>", "exec"), namespace)
    return make_fx(functools.partial(namespace["forward"], None), tracing_mode="fake")(*examples)
