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
    """Add each gradient to a slot of its parameter; no parameter is updated."""
    calls, values = dict(graph.calls), dict(graph.values)
    for parameter, gradient, slot, _ in _slots(graph, values):
        args = (slot, gradient)
        call = write(values, AddTo(), "accumulate", args, (slot,), values[parameter].node)
        calls[call.name] = call
    return replace(graph, calls=calls, values=values)


def total(graph: Graph) -> Graph:
    """Add the slots to the gradients, which are then the sums over all k batches, and clear the slots."""
    calls, values = dict(graph.calls), dict(graph.values)
    totals: dict[tuple[str, str], str] = {}  # parameter and gradient -> the sum with the slot
    for parameter, gradient, slot, part in _slots(graph, values):
        of = values[parameter]
        whole = of.sibling(f":total{part}", Kind.ACCUMULATE, values[slot].spec)
        name = totals[parameter, gradient] = whole.name
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
    return replace(
        graph,
        calls=calls,
        values=values,
        gradients={of: totals[of, gradient] for of, gradient in graph.gradients.items()},
        partial_gradients={
            of: tuple(totals[of, gradient] for gradient in parts)
            for of, parts in graph.partial_gradients.items()
        },
    )


def _slots(graph: Graph, values: dict[str, Value]) -> Iterator[tuple[str, str, str, str]]:
    """Yield each parameter, its gradient and a new slot, which has the wider dtype of the two.

    With micro-batches, a parameter has a slot for each of them; last comes what tells them apart in names.
    """
    whole = {parameter: (gradient,) for parameter, gradient in graph.gradients.items()}
    for parameter, parts in (whole | dict(graph.partial_gradients)).items():
        for number, gradient in enumerate(parts):
            of, by = values[parameter].spec, values[gradient].spec
            spec = StateSpec(of.shape, dtype=torch.promote_types(of.dtype, by.dtype))
            part = "" if len(parts) == 1 else f".{number}"
            slot = beside(values, parameter, f"{GRAD}{part}", spec, role=GRAD)
            yield parameter, gradient, slot, part
