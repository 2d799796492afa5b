"""Operators: how the call of a torch operator becomes nodes.

A row is a function with the operator's name. It takes arguments of the call by the names of the operator's
schema, and returns what `Found` says, mostly a Node. Three rules keep rows short and right:

- An argument that a row does not name must have its default value; otherwise the row is not used.
- An argument must be the same in train mode and in eval mode, unless the row names `eval_x` beside `x`.
- A row that names `result` also gets the first tensor that the call returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphnet.bridges.trace import Operand, Operation
from graphnet.errors import InputError, nearest


@dataclass(frozen=True)
class Node:
    """A node of a model: the name of a layer, what it reads, its fields, and its parameters.

    Args:
        layer: the registered name.
        inputs: what forward takes, in order: tensors of the module, or outputs of other nodes.
        fields: the layer's fields.
        slots: tensors of the module that are the layer's parameters and states, by the layer's names; None
            for an absent one.
        output: the output that is read, where it is not the first.

    >>> Node("relu", ()).fields
    {}
    """

    layer: str
    inputs: tuple[Operand | Node, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, Operand | None] = field(default_factory=dict)
    output: str = ""

    def nodes(self) -> Iterator[Node]:
        """This node and those that it reads."""
        yield self
        for given in self.inputs:
            if isinstance(given, Node):
                yield from given.nodes()

    def owned(self) -> dict[str, Operand]:
        """The slots that are not absent."""
        return {name: operand for name, operand in self.slots.items() if operand is not None}


Found = Node | tuple[Node, ...] | Operand | None
"""What a row returns: the node of a call; one for each result, where the call returns a list; the Operand
that it returns unchanged; or None if no layer computes the call."""
Row = Callable[..., Found]
"""A function that makes the node of a call."""


def nodes_of(found: Found) -> Iterator[Node]:
    """All nodes of what a row returned."""
    for node in found if isinstance(found, tuple) else (found,):
        if isinstance(node, Node):
            yield from node.nodes()


def row_of(rows: dict[str, Row], *names: str) -> Callable[[Row], Row]:
    """Enter a function in a table, as the row of these operators."""

    def enter(function: Row) -> Row:
        for name in names:
            rows[name] = function
        return function

    return enter


def find_node(operation: Operation, rows: Mapping[str, Row]) -> Found:
    """What the row of an operation returns, or None if there is no row or it does not fit.

    Raises:
        InputError: a row names an argument that the operator does not have.
    """
    function = rows.get(str(operation.target))
    if function is None:
        return None
    wanted = inspect.signature(function).parameters
    known = [argument.name for argument in operation.target._schema.arguments]
    for name in wanted:
        if name != "result" and name.removeprefix("eval_") not in known:
            raise InputError(
                f"from_torch: the row of {operation.target} names {name!r}. {nearest(name, known)}"
            )
    given: dict[str, Any] = {"result": operation.outputs[0]} if "result" in wanted else {}
    for argument in operation.target._schema.arguments:
        name = argument.name
        value, in_eval = operation.arguments[name], operation.evaluation[name]
        if name in wanted:
            given[name] = value
        elif value != _as_tuple(argument.default_value):
            return None
        if f"eval_{name}" in wanted:
            given[f"eval_{name}"] = in_eval
        elif value != in_eval:
            return None
    found = function(**given)
    owned = [operand for node in nodes_of(found) for operand in node.owned().values()]
    if not all(operand.is_slot for operand in owned):
        return None  # a weight that is computed, such as one with a weight norm
    return found


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def is_float(x: Any) -> bool:
    """Whether an argument is a tensor of floating point."""
    return isinstance(x, Operand) and x.dtype.is_floating_point


def alike(x: Operand, other: Any) -> bool:
    """Whether both are tensors of one floating dtype."""
    return is_float(x) and is_float(other) and x.dtype == other.dtype


def sizes(value: Any, axes: int) -> tuple[Any, ...]:
    """A size for each spatial axis; one number stands for all of them."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * axes if len(given) == 1 else given
