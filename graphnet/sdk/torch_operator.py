"""Operators: how a plugin states the layers for the operators of torch, for graphnet.from_torch.

A row is a function that is registered under the full name of an operator, such as "aten.relu.default". It
takes arguments of the call by the names in the operator's schema, and returns a `Found`, usually a Node.
Three rules keep rows short and correct:

- An argument that a row does not name must have its default value; otherwise the row is not used.
- An argument must be the same in train mode and in eval mode, unless the row names `eval_x` beside `x`.
- A row that names `result` also gets the first tensor that the call returns.

Two names are no operators: "module.parameter.get" and "module.buffer.get". Their rows take a tensor of the
module as `self` and any value of the model as `like`, and return the node that returns the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

Size: TypeAlias = Any
"""The size of an axis: an integer, or a sympy expression of the sizes of the inputs."""


@dataclass(frozen=True)
class Operand:
    """A tensor that an operator takes or returns.

    Args:
        name: the name of the input, of the tensor in the module, or of the operation that returns it.
        kind: "input", "result" of an operation, or "tensor" of the module.
        shape: the size of each axis.
        dtype: its dtype.
        output: its position among the results of the operation.
        trained: whether it is a parameter of the module, not a buffer.

    >>> x = Operand("x", "input", (2, 3), torch.float32)
    >>> x.name, x.kind, x.shape, x.dtype, x.output, x.trained, x.is_slot
    ('x', 'input', (2, 3), torch.float32, 0, False, False)
    """

    name: str
    kind: str
    shape: tuple[Size, ...]
    dtype: torch.dtype
    output: int = 0
    trained: bool = False

    @property
    def is_slot(self) -> bool:
        """Whether it is a parameter or buffer of the module."""
        return self.kind == "tensor"


@dataclass(frozen=True)
class Node:
    """A node of a model: the name of a layer, what it reads, its fields, and its parameters.

    Args:
        layer: the registered name.
        inputs: what forward takes, in order: tensors of the module, or outputs of other nodes.
        fields: the layer's fields.
        slots: tensors of the module that are the layer's parameters and states, by the layer's names; None
            for an absent one.
        output: the name of the output that is read, if it is not the first.

    >>> weight = Operand("fc.weight", "tensor", (3, 3), torch.float32, trained=True)
    >>> x = Operand("x", "input", (2, 3), torch.float32)
    >>> dense = Node("linear", (x,), {"out_features": 3}, slots={"weight": weight, "bias": None})
    >>> act = Node("relu", (dense,))
    >>> [node.layer for node in act.nodes()]
    ['relu', 'linear']
    >>> list(dense.owned()), dense.fields, dense.inputs[0].name, act.output
    (['weight'], {'out_features': 3}, 'x', '')
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
    """All nodes of what a row returned.

    >>> [node.layer for node in nodes_of(Node("relu", (Node("tanh", ()),)))]
    ['relu', 'tanh']
    """
    for node in found if isinstance(found, tuple) else (found,):
        if isinstance(node, Node):
            yield from node.nodes()


def is_float(x: Any) -> bool:
    """Whether an argument is a tensor of floating point.

    >>> is_float(Operand("x", "input", (2, 3), torch.int64)), is_float(0.5)
    (False, False)
    """
    return isinstance(x, Operand) and x.dtype.is_floating_point


def alike(x: Operand, other: Any) -> bool:
    """Whether both are tensors of the same floating dtype.

    >>> x = Operand("x", "input", (2, 3), torch.float32)
    >>> alike(x, x), alike(x, 0.5)
    (True, False)
    """
    return is_float(x) and is_float(other) and x.dtype == other.dtype


def sizes(value: Any, axes: int) -> tuple[Any, ...]:
    """A size for each spatial axis; one number stands for all of them.

    >>> sizes(3, 2), sizes((3, 5), 2)
    ((3, 3), (3, 5))
    """
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * axes if len(given) == 1 else given
