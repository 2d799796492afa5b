"""Functional: the operators that a traced graph needs; in-place operators become operators that return.

torch.export keeps `relu_` and `add_` as they are; after an in-place operator, the code's tensor stands for
its result. That holds as long as nothing reads the overwritten memory through another tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node as FxNode

from graphnet.errors import InputError


def without_writes(
    calls: Sequence[FxNode],
    output: FxNode,
    *,
    tensors: Mapping[FxNode, str],
    counters: Set[FxNode],
) -> list[FxNode]:
    """Give in-place calls their out-of-place operators, and leave out what no output needs.

    Args:
        calls: all calls of the graph, in order.
        output: the node that returns the outputs.
        tensors: the parameters and buffers of the module, with their names.
        counters: buffers whose increments can be left out.

    Returns:
        The calls of operators that compute tensors which the outputs need, in order.

    Raises:
        InputError: a call writes into a buffer, or into memory that is read through another tensor later.
    """
    position = {node: number for number, node in enumerate((*calls, output))}
    memory: dict[FxNode, FxNode] = {}  # a tensor -> the first one with the same memory

    def owner(node: FxNode) -> FxNode:
        return memory.get(node, node)

    writes: list[FxNode] = []
    for node in calls:
        target = node.target
        if not isinstance(target, OpOverload):
            if node.args and isinstance(node.args[0], FxNode):
                memory[node] = owner(node.args[0])  # an item of a list of results
            continue
        if target._schema.is_mutable:
            written = node.args[0]
            assert isinstance(written, FxNode)
            if written in counters:
                continue
            if written in tensors:
                raise InputError(
                    f"from_torch: {target} writes into {tensors[written]!r}, a tensor of the module. Only "
                    f"running statistics of norms are carried over; make a layer of this part of the network "
                    f"with gn.from_torch_module, which keeps such buffers."
                )
            _check_unread(node, owner(written), position, owner)
            writes.append(node)
        elif any(r.alias_info is not None for r in target._schema.returns):
            source = node.args[0]
            if isinstance(source, FxNode):
                memory[node] = owner(source)
    for node in writes:
        node.target = _out_of_place(node.target)
    return _needed(calls, output)


def _check_unread(
    node: FxNode,
    owner: FxNode,
    position: dict[FxNode, int],
    owner_of: Callable[[FxNode], FxNode],
) -> None:
    """Raise InputError if the memory that a node writes is read through another tensor after it."""
    for other in [*position, owner]:
        if other is node or other.op == "output" or owner_of(other) is not owner:
            continue
        if any(position.get(user, 0) > position[node] for user in other.users):
            raise InputError(
                f"from_torch: {node.target} writes into a tensor of which {other.name!r} is a view, and "
                f"which is read later. Write this part of the module out of place, with torch.cat or "
                f"torch.where."
            )


def _out_of_place(target: object) -> OpOverload:
    """The operator that returns what an in-place operator writes."""
    assert isinstance(target, OpOverload)
    name = target._schema.name.removeprefix("aten::")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    overload = getattr(packet, target._overloadname, None) if name.endswith("_") else None
    if not isinstance(overload, OpOverload):
        raise InputError(
            f"from_torch: {target} writes into its argument, and there is no operator that does the same out "
            f"of place. Write this part of the module out of place."
        )
    return overload


def _needed(calls: Sequence[FxNode], output: FxNode) -> list[FxNode]:
    wanted: set[FxNode] = set(output.all_input_nodes)
    kept = []
    for node in reversed(calls):
        if node not in wanted:
            continue
        wanted.update(node.all_input_nodes)
        if isinstance(node.target, OpOverload) and _makes_tensors(node):
            kept.append(node)
    return kept[::-1]


def _makes_tensors(node: FxNode) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (
        isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value)
    )
