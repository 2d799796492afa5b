"""Accumulate: gradients of several small batches, one after the other, add up to those of a large one.

A training with `accumulate: k` has two plans. The first k - 1 steps of k run `add_up`, which adds each
gradient to a slot beside its parameter; the last runs `total`, in which optimizers see slot plus gradient,
and the slot is cleared. Each loss counts 1 / k (see passes/differentiate.py), so that mean losses add up to
the mean over all k batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from graphnet.graph import Call, Graph, Kind, Value
from graphnet.passes.rewrite import beside, write
from graphnet.sdk import Accumulate, AddTo, Clear, StateSpec

GRAD = "@grad"  # the role of the slots, and the end of their names
UPDATES = "@updates"  # the scalar that counts updates, where these are not as many as the steps


def add_up(graph: Graph) -> Graph:
    """The step that adds gradients to their slots, and updates no parameter."""
    calls, values = dict(graph.calls), dict(graph.values)
    for parameter, gradient, slot in _slots(graph, values):
        args = (slot, gradient)
        call = write(values, AddTo(), "accumulate", args, (slot,), values[parameter].node)
        calls[call.name] = call
    return replace(graph, calls=calls, values=values)


def total(graph: Graph) -> Graph:
    """The step whose gradients are those of all k batches; for the optimizer to follow."""
    calls, values = dict(graph.calls), dict(graph.values)
    totals: dict[str, str] = {}
    for parameter, gradient, slot in _slots(graph, values):
        of = values[parameter]
        whole = of.sibling(":total", Kind.ACCUMULATE, values[slot].spec)
        name = totals[parameter] = whole.name
        values[name] = whole
        calls[name] = Call(
            name=name,
            kind=Kind.ACCUMULATE,
            layer=Accumulate(),
            method="forward",
            args=((gradient, slot),),
            results=(name,),
            title="accumulate",
            node=of.node,
        )
        call = write(values, Clear(), "clear", (slot,), (slot,), of.node)
        calls[call.name] = call
    return replace(graph, calls=calls, values=values, gradients=totals)


def _slots(graph: Graph, values: dict[str, Value]) -> Iterator[tuple[str, str, str]]:
    """Each parameter, its gradient, and its slot, which is new; as wide as the wider of the two."""
    for parameter, gradient in graph.gradients.items():
        of, by = values[parameter].spec, values[gradient].spec
        spec = StateSpec(of.shape, dtype=torch.promote_types(of.dtype, by.dtype))
        yield parameter, gradient, beside(values, parameter, GRAD, spec)
