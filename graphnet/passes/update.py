"""Update: add the calls that update parameters and write new states into their slots.

Each update is a call that overwrites its slot. It waits for all calls that read the old value or a view of
it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from graphnet.description import UpdateSettings
from graphnet.errors import ContractError, nearest
from graphnet.graph import LR, SLOTS, STEP, Arg, Call, Const, Graph, Kind, Value
from graphnet.passes.rewrite import add_cast, beside, dtype_of_value, scalar, write
from graphnet.sdk import Assign, Layer, Optimizer, Times


def update(graph: Graph, *, updates: UpdateSettings, counter: str = STEP) -> Graph:
    """Add one update call for each parameter with a gradient, and one for each state that changes.

    Args:
        graph: a graph with a reverse pass.
        updates: the optimizer and its settings.
        counter: the scalar or slot that counts updates; optimizers get it as `step`.

    Raises:
        DescriptionError: a selector in `updates` matches no parameter.
        ContractError: the optimizer's update has an argument that is no state of it.
    """
    calls, values = dict(graph.calls), dict(graph.values)
    for name, call in graph.calls.items():
        if isinstance(call.layer, Layer) and call.method == "forward":
            states = call.layer.updates
            for state, new in zip(
                states, call.results[len(call.results) - len(states) :], strict=True
            ):
                if new is None:  # the state is frozen
                    continue
                slot = call.ports()[state]
                assert isinstance(slot, str)
                assert isinstance(new, str)
                args = (slot, new)
                calls[f"{slot}:update"] = write(values, Assign(), "assign", args, (slot,), name)
    if updates.optimizer is not None:
        rates = {1.0: LR}
        for parameter, gradient in graph.gradients.items():
            spec = values[parameter].spec
            optimizer, scale = updates.rule(parameter, spec)
            scalar(values, LR, spec)
            if scale not in rates:
                rates[scale] = f"{LR}:{len(rates)}"
                calls[rates[scale]] = _rate(values, rates[scale], scale)
            step = scalar(values, counter, replace(spec, dtype=torch.int64))
            if values[gradient].spec.dtype != spec.dtype:
                wanted, name = dtype_of_value(values[parameter]), f"{parameter}:grad"
                gradient = add_cast(gradient, name, wanted, calls=calls, values=values)
            call = _optimize(values, optimizer, parameter, gradient, rates[scale], step)
            calls[call.name] = call
    return _after_readers(replace(graph, calls=calls, values=values))


def _rate(values: dict[str, Value], name: str, factor: float) -> Call:
    """A call that computes a parameter's own learning rate: the common one times a factor."""
    values[name] = Value(name, values[LR].spec, Kind.SCALE)
    return Call(name, Kind.SCALE, Times(factor=factor), "forward", (LR,), (name,), "lr", LR)


def _optimize(
    values: dict[str, Value],
    optimizer: Optimizer,
    parameter: str,
    gradient: str,
    lr: str,
    step: str,
) -> Call:
    spec = values[parameter].spec
    named: dict[str, Arg] = {"parameter": parameter, "grad": gradient, "lr": lr, "step": step}
    slots = [parameter]
    for state, state_spec in optimizer.states(spec).items():
        if state_spec is None:
            named[state] = Const(None)
            continue
        named[state] = beside(values, parameter, state, state_spec)
        slots.append(f"{parameter}:{state}")
    for name in optimizer.arguments:
        if name not in named:
            raise ContractError(
                f"{type(optimizer).__name__}.update names {name!r}, which is no state of it. "
                f"{nearest(name, named)}"
            )
    args = tuple(named[name] for name in optimizer.arguments)
    title = type(optimizer).__name__.lower()
    return write(values, optimizer, title, args, tuple(slots), values[parameter].node)


def _after_readers(graph: Graph) -> Graph:
    """Let each update wait for every call that reads the old value of its slot or a view of it."""
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
