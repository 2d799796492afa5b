"""Accumulate: the gradients of several small batches add up to the gradient of one large batch.

A training with `accumulate: k` has two plans. The first k - 1 of k steps run the plan of `add_up`, which
adds each gradient to a slot beside its parameter. The last step runs the plan of `total`: the optimizers
read slot + gradient, and the slot is cleared. Each loss is multiplied by 1 / k (`share` in
passes/differentiate.py), so the losses of k batches add up to their mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from graphnet.description import UpdateSettings
from graphnet.graph import STEP, Call, Graph, Kind, Value
from graphnet.passes.rewrite import beside, write
from graphnet.sdk import Accumulate, AddTo, Clear, StateSpec

GRAD = "@grad"  # the role of the slots; their names end with it
UPDATES = "@updates"  # the scalar that counts updates, if an update takes several steps


def update_counter(updates: UpdateSettings) -> str:
    """The name of the scalar that counts updates: the step count, or UPDATES if steps accumulate."""
    return STEP if updates.accumulate == 1 else UPDATES


def add_up(graph: Graph) -> Graph:
    """Add each gradient to the slot of its parameter; no parameter is updated."""
    calls, values = dict(graph.calls), dict(graph.values)
    for parameter, gradient, slot in _slots(graph, values):
        args = (slot, gradient)
        call = write(values, AddTo(), "accumulate", args, (slot,), values[parameter].node)
        calls[call.name] = call
    return replace(graph, calls=calls, values=values)


def total(graph: Graph) -> Graph:
    """Set `gradients` to the sums over all k batches, for the optimizer, and clear the slots."""
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
    """Yield each parameter, its gradient and a new slot, which has the wider dtype of the two."""
    for parameter, gradient in graph.gradients.items():
        of, by = values[parameter].spec, values[gradient].spec
        spec = StateSpec(of.shape, dtype=torch.promote_types(of.dtype, by.dtype))
        yield parameter, gradient, beside(values, parameter, GRAD, spec)
