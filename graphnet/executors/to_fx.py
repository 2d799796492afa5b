"""Capture: a plan's generated function becomes a torch.fx graph of PyTorch operators, forward to update."""

from __future__ import annotations

import functools
import hashlib
import importlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from graphnet.errors import CompileError, LayerError
from graphnet.executors.eager import Function
from graphnet.plan import Plan


@dataclass(frozen=True, slots=True)
class Captured:
    """The operators of a plan as a torch.fx graph.

    Args:
        graph: takes the plan's arguments, then `constants`.
        constants: tensors that the layers hold outside the plan's arguments.
    """

    graph: GraphModule
    constants: tuple[Tensor, ...]


@torch.no_grad()
def capture(plan: Plan, examples: Sequence[Tensor]) -> Captured:
    """Trace the plan's function on fake tensors, which have shapes but no values, and record every operator.

    Args:
        plan: the plan to capture.
        examples: tensors with the shapes, strides, dtypes and devices of the plan's arguments.

    Raises:
        LayerError: a layer's code cannot be traced; the message names the node and the layer's module.
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
            f"{call.function} cannot be compiled: {type(error).__name__}: {cause}. While code is compiled, "
            f"tensors have no values: use tensor operations only, read no value back to the host, keep no "
            f"tensors outside the arguments. Or use the executor eager."
        ) from error
    return Captured(graph, _lift_constants(graph))


def _lift_constants(graph: GraphModule) -> tuple[Tensor, ...]:
    """Turn the tensors that a graph holds into arguments: a compiled graph from the cache lacks them."""
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
    """Return a digest of all operators and their arguments, which decide what the compiler makes."""
    return hashlib.sha256(captured.graph.code.encode()).hexdigest()[:32]


Names = dict[str, list[str]]
"""The global names of a text, each with what it means: ["module", NAME], ["attribute", MODULE, NAME] for a
class or function of a module, or ["number", TEXT]."""


def to_text(graph: GraphModule) -> tuple[str, Names]:
    """Write a graph as the source text of a function, for `from_text` in another process.

    Pickle is not used because reading a pickled graph runs its constructors, such as arange.

    Returns:
        The text of `forward(self, ...)`, and the global names in it.

    Raises:
        CompileError: a global name means something that has no name in a module.
    """
    code = graph.graph.python_code("self")
    return code.src, {name: _meaning(name, value) for name, value in code.globals.items()}


def _meaning(name: str, value: Any) -> list[str]:
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    if isinstance(value, float):
        return ["number", repr(value)]
    if value is type(None):
        return ["attribute", "types", "NoneType"]
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None or path is None or _attribute(module, path) is not value:
        raise CompileError(
            f"the plan cannot be sent to another process: {name} is a {type(value).__name__} without a name"
        )
    return ["attribute", module, path]


def _attribute(module: str, path: str) -> Any:
    try:
        return operator.attrgetter(path)(importlib.import_module(module))
    except AttributeError:
        return None


def _meant(meaning: list[str]) -> Any:
    match meaning:
        case ["module", name]:
            return importlib.import_module(name)
        case ["number", text]:
            return float(text)
        case ["attribute", module, path]:
            return _attribute(module, path)
    raise CompileError(f"expected what a name means, found {meaning!r}")


@torch.no_grad()
def from_text(text: str, names: Names, examples: Sequence[Tensor]) -> GraphModule:
    """Make the graph whose text and names `to_text` returned, for arguments like the examples."""
    namespace = {name: _meant(meaning) for name, meaning in names.items()}
    exec(compile(text, "<graph>", "exec"), namespace)
    return make_fx(functools.partial(namespace["forward"], None), tracing_mode="fake")(*examples)
