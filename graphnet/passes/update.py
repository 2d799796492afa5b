"""Update: let an optimizer walk the parameter nodes, and write new states into their slots.

Each update is a call that overwrites its slot, once everything that reads the old value, or a view of
it, has run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from graphnet.calls import Assign
from graphnet.errors import ContractError, nearest
from graphnet.graph import LR, SLOTS, STEP, Arg, Call, Const, Graph, Kind, Value
from graphnet.layer import Layer
from graphnet.optim import Optimizer
from graphnet.spec import Spec


def update(graph: Graph, *, optimizer: Optimizer | None) -> Graph:
    """Add one update call for each parameter with a gradient, and one for each state that changes."""
    calls, values = dict(graph.calls), dict(graph.values)
    for name, call in graph.calls.items():
        if isinstance(call.layer, Layer) and call.method == "forward":
            for state in call.layer.updates:
                slot = call.ports()[state]
                assert isinstance(slot, str)
                new = f"{name}.{state}_next"
                calls[f"{slot}:update"] = _write(
                    values, Assign(), "assign", (slot, new), {slot: f"{slot}:next"}, name
                )
    if optimizer is not None:
        for parameter, gradient in graph.gradients.items():
            calls[f"{parameter}:update"] = _optimize(values, optimizer, parameter, gradient)
    return _after_readers(replace(graph, calls=calls, values=values))


def _optimize(
    values: dict[str, Value], optimizer: Optimizer, parameter: str, gradient: str
) -> Call:
    spec = values[parameter].spec
    for scalar, dtype in ((LR, spec.dtype), (STEP, torch.int64)):
        values.setdefault(scalar, Value(scalar, Spec((), dtype, spec.device), Kind.SCALAR))
    named: dict[str, Arg] = {"parameter": parameter, "grad": gradient, "lr": LR, "step": STEP}
    written = {parameter: f"{parameter}:next"}
    for state, state_spec in optimizer.states(spec).items():
        if state_spec is None:
            named[state] = Const(None)
            continue
        slot = f"{parameter}:{state}"
        named[state] = slot
        written[slot] = f"{slot}:next"
        values[slot] = Value(
            slot,
            Spec(state_spec.shape, state_spec.dtype or spec.dtype, spec.device),
            Kind.STATE,
            initializer=state_spec.initializer,
            memory_format=values[parameter].memory_format,
        )
    for name in optimizer.arguments:
        if name not in named:
            raise ContractError(
                f"{type(optimizer).__name__}.update names {name!r}, which is no state of it. "
                f"{nearest(name, named)}"
            )
    args = tuple(named[name] for name in optimizer.arguments)
    title = type(optimizer).__name__.lower()
    return _write(values, optimizer, title, args, written, parameter.rpartition(".")[0])


def _write(
    values: dict[str, Value],
    rule: Optimizer | Assign,
    title: str,
    args: tuple[Arg, ...],
    written: Mapping[str, str],
    node: str,
) -> Call:
    for slot, new in written.items():
        values[new] = Value(new, values[slot].spec, Kind.UPDATE, view_of=slot)
    return Call(
        name=f"{next(iter(written))}:update",
        kind=Kind.UPDATE,
        layer=rule,
        method="update",
        args=args,
        results=tuple(written.values()),
        title=title,
        node=node,
        writes={new: slot for slot, new in written.items()},
    )


def _after_readers(graph: Graph) -> Graph:
    """Make each update wait for every call that reads its slot's old value or a view of it."""
    views: dict[str, list[str]] = {}
    for name, value in graph.values.items():
        if value.view_of is not None and value.kind is not Kind.UPDATE:
            views.setdefault(value.view_of, []).append(name)
    calls = dict(graph.calls)
    for name, call in graph.calls.items():
        if call.kind is not Kind.UPDATE:
            continue
        waiting: dict[str, None] = {}
        for slot in call.writes.values():
            assert graph.values[slot].kind in SLOTS
            pending = [slot]
            while pending:
                read = pending.pop()
                waiting.update(dict.fromkeys(graph.readers.get(read, ())))
                pending.extend(views.get(read, ()))
        waiting.pop(name, None)
        calls[name] = replace(call, after=tuple(waiting))
    return replace(graph, calls=calls)
