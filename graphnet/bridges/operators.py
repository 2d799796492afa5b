"""Operators: the nodes for the call of a torch operator, by the row that a plugin registered for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphnet.bridges.trace import Operation
from graphnet.errors import InputError, nearest
from graphnet.sdk import Entry, Found, nodes_of


def find_node(operation: Operation, rows: Mapping[str, Entry]) -> Found:
    """What the row of an operation returns, or None if there is no row or it does not fit.

    Raises:
        InputError: a row names an argument that the operator does not have.
    """
    entry = rows.get(str(operation.target))
    if entry is None:
        return None
    function = entry.value
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
    found: Found = function(**given)
    owned = [operand for node in nodes_of(found) for operand in node.owned().values()]
    if not all(operand.is_slot for operand in owned):
        return None  # a weight that is computed, such as one with a weight norm
    return found


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
