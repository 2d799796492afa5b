"""Trace: the operators that a torch module runs, in order, as torch.export finds them.

The module is exported twice, in train mode and in eval mode, with sizes that are symbols where the module
allows other sizes. Both lists of operators must be the same, except for arguments such as `training`.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as FxNode

from graphnet.bridges.export import export, export_free
from graphnet.bridges.functional import without_writes
from graphnet.errors import InputError
from graphnet.sdk import Operand


@dataclass(frozen=True)
class Operation:
    """One call of an operator of torch.

    Args:
        name: a name that no other operation has.
        target: the operator.
        path: the path of the submodule that calls it; "" is the module itself.
        arguments: all arguments by the names of the operator's schema, in train mode. An Operand stands for
            a tensor, a sympy expression for a size that depends on the inputs.
        evaluation: the arguments in eval mode.
        outputs: the tensors that it returns.
        where: the line of the code that calls it.
    """

    name: str
    target: OpOverload
    path: str
    arguments: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    outputs: tuple[Operand, ...]
    where: str

    @property
    def title(self) -> str:
        """The operator as torch writes it, and the submodule."""
        return f"{self.target} in {self.path or 'the module itself'}"


@dataclass(frozen=True)
class Trace:
    """What a module computes.

    Args:
        inputs: the inputs that are tensors. A size that may be another one is a symbol.
        operations: the operators, each after those whose results it takes.
        outputs: the tensors that the module returns.
        tensors: the parameters, buffers and constants by name.
        examples: a tensor of the size of each input.
    """

    inputs: tuple[Operand, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Operand, ...]
    tensors: Mapping[str, Tensor]
    examples: tuple[Tensor, ...]

    def axes(self) -> dict[sympy.Symbol, tuple[int, int]]:
        """The number of an input, and its axis, that has the size of each symbol."""
        return {
            size: (number, axis)
            for number, given in reversed([*enumerate(self.inputs)])
            for axis, size in enumerate(given.shape)
            if isinstance(size, sympy.Symbol)
        }


def trace(module: torch.nn.Module, examples: Sequence[Tensor]) -> Trace:
    """Find the operators that a module runs; the module stays as it is.

    A size on which the module's Python code branches is taken as fixed.

    Raises:
        InputError: torch.export cannot trace the module, or the module runs other operators in eval mode.
    """
    copied = copy.deepcopy(module)
    exported, fixed = export_free(copied.train(), examples)
    training = _Reader(exported, copied)
    evaluation = _Reader(export(copied.eval(), examples, fixed), copied)
    operations = tuple(_paired(training, evaluation))
    tensors = {**exported.state_dict, **exported.constants}
    return Trace(
        training.inputs,
        operations,
        training.outputs,
        {name: tensor.detach() for name, tensor in tensors.items() if isinstance(tensor, Tensor)},
        tuple(examples),
    )


class _Reader:
    """Reads an exported program: its tensors as Operands, and the operators that its outputs need."""

    def __init__(self, exported: ExportedProgram, module: torch.nn.Module) -> None:
        self.module = module
        self.operands: dict[FxNode, Any] = {}
        self.inputs = self._read_inputs(exported)
        calls = [node for node in exported.graph.nodes if node.op == "call_function"]
        (last,) = (node for node in exported.graph.nodes if node.op == "output")
        for node in calls:
            self.operands[node] = _results(node)
        returned = [
            spec.arg.name
            for spec in exported.graph_signature.output_specs
            if spec.kind is OutputKind.USER_OUTPUT and hasattr(spec.arg, "name")
        ]
        named = {node.name: node for node in exported.graph.nodes}
        self.outputs = tuple(self.operands[named[name]] for name in returned)
        tensors = {
            node: operand.name
            for node, operand in self.operands.items()
            if isinstance(operand, Operand) and operand.is_slot
        }
        counters = {node for node, name in tensors.items() if self._is_counter(name)}
        self._needed = without_writes(calls, last, tensors=tensors, counters=counters)

    def _read_inputs(self, exported: ExportedProgram) -> tuple[Operand, ...]:
        nodes = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
        inputs = []
        for spec in exported.graph_signature.input_specs:
            if not isinstance(getattr(spec.arg, "name", None), str) or spec.arg.name not in nodes:
                continue
            node = nodes[spec.arg.name]
            if not isinstance(node.meta.get("val"), Tensor):
                raise InputError(
                    f"from_torch: the input {node.name!r} is no tensor. Set it inside a module around this "
                    f"one."
                )
            if spec.kind is InputKind.USER_INPUT:
                operand = _operand(node.name, "input", node.meta["val"])
                inputs.append(operand)
            else:
                operand = _operand(str(spec.target), "tensor", node.meta["val"])
                operand = replace(operand, trained=spec.kind is InputKind.PARAMETER)
            self.operands[node] = operand
        return tuple(inputs)

    def operations(self) -> Iterator[tuple[FxNode, str, dict[str, Any]]]:
        """Each needed operator: its node, the submodule's path, and its arguments."""
        for node in self._needed:
            yield node, _path(node), self._arguments(node)

    def _arguments(self, node: FxNode) -> dict[str, Any]:
        found = {}
        assert isinstance(node.target, OpOverload)
        schema = node.target._schema.arguments
        given = {k.name: v for k, v in zip(schema, node.args, strict=False)} | dict(node.kwargs)
        for argument in schema:
            value = given.get(argument.name, argument.default_value)
            found[argument.name] = self._value(value)
        return found

    def _value(self, value: Any) -> Any:
        if isinstance(value, FxNode):
            known = self.operands[value]
            return _constant(value.meta["val"]) if known is None else known
        if isinstance(value, (list, tuple)):
            return tuple(self._value(item) for item in value)
        return value

    def _is_counter(self, name: str) -> bool:
        """Whether a tensor counts the batches of a norm, which only a norm with momentum None reads."""
        owner, _, last = name.rpartition(".")
        norm = torch.nn.modules.batchnorm._NormBase
        return last == "num_batches_tracked" and isinstance(self.module.get_submodule(owner), norm)


def _operand(name: str, kind: str, value: Tensor, output: int = 0) -> Operand:
    return Operand(name, kind, tuple(map(_constant, value.shape)), value.dtype, output)


def _constant(value: Any) -> Any:
    """A size as a number or an expression."""
    if not isinstance(value, torch.SymInt):
        return value
    expression = value.node.expr
    return int(expression) if expression.is_number else expression


def _results(node: FxNode) -> Any:
    """The Operand of a node, a tuple of them, or None for a node that computes sizes."""
    value = node.meta.get("val")
    if node.target is operator.getitem and isinstance(value, Tensor):
        source, number = node.args
        assert isinstance(source, FxNode)
        assert isinstance(number, int)
        return _operand(source.name, "result", value, number)
    if isinstance(value, Tensor):
        return _operand(node.name, "result", value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, Tensor) for item in value):
        return tuple(_operand(node.name, "result", item, i) for i, item in enumerate(value))
    return None


def _path(node: FxNode) -> str:
    stack = [*node.meta.get("nn_module_stack", {}).values()]
    return str(stack[-1][0]).partition("@")[0] if stack else ""


def _where(node: FxNode) -> str:
    """The last line of the user's code on the way to a node."""
    lines = str(node.meta.get("stack_trace") or "").strip().splitlines()
    torch_folder = str(Path(torch.__file__).parent)
    places = [line.strip() for line in lines if line.strip().startswith("File ")]
    own = [place for place in places if torch_folder not in place]
    return own[-1].removeprefix("File ") if own else ""


def _paired(training: _Reader, evaluation: _Reader) -> Iterator[Operation]:
    """The operations of both modes as one; their results have the names of train mode.

    Raises InputError if one mode runs other operators than the other.
    """
    names: dict[str, str] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, Operand) and value.kind == "result":
            return Operand(
                names.get(value.name, value.name), value.kind, (), value.dtype, value.output
            )
        if isinstance(value, Operand):
            return Operand(value.name, value.kind, (), value.dtype)
        return tuple(map(renamed, value)) if isinstance(value, tuple) else value

    mine, other = [*training.operations()], [*evaluation.operations()]
    for (node, path, arguments), (twin, twin_path, twin_arguments) in zip(
        mine, other, strict=False
    ):
        names[twin.name] = node.name
        same_tensors = _tensors(renamed, arguments) == _tensors(renamed, twin_arguments)
        if (node.target, path) != (twin.target, twin_path) or not same_tensors:
            raise _modes_differ(node, twin)
        for name, value in arguments.items():  # sizes have other symbols in the other trace
            if not _has_constants(value):
                twin_arguments[name] = value
        results = training.operands[node]
        assert isinstance(node.target, OpOverload)
        yield Operation(
            node.name,
            node.target,
            path,
            arguments,
            {name: _eval_value(arguments[name], value) for name, value in twin_arguments.items()},
            results if isinstance(results, tuple) else (results,),
            _where(node),
        )
    if len(mine) != len(other):
        longer = mine if len(mine) > len(other) else other
        raise _modes_differ(longer[min(len(mine), len(other))][0], None)


def _tensors(renamed: Callable[[Any], Any], arguments: Mapping[str, Any]) -> list[Any]:
    return [renamed(value) for value in arguments.values() if not _has_constants(value)]


def _has_constants(value: Any) -> bool:
    """Whether an argument holds numbers, flags or texts only."""
    if isinstance(value, tuple):
        return all(map(_has_constants, value))
    return not isinstance(value, (Operand, sympy.Expr))


def _eval_value(value: Any, evaluation: Any) -> Any:
    return evaluation if _has_constants(value) else value


def _modes_differ(node: FxNode, twin: FxNode | None) -> InputError:
    found = "nothing" if twin is None else f"{twin.target} ({_where(twin)})"
    return InputError(
        f"from_torch: the module runs other operators in train mode than in eval mode: {node.target} "
        f"({_where(node)}) in one, {found} in the other. A model has one graph: write the difference with "
        f"functions that take the mode, such as F.dropout(x, p, self.training), or make a layer of that part "
        f"of the network with gn.from_torch_module, which keeps both modes."
    )
