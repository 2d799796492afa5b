"""Update: add the calls that update parameters and write new states into their slots.

Each update is a call that overwrites its slot. It waits for all calls that read the old value or a view of
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from graphnet.description import UpdateSettings
from graphnet.graph import LR, RANK, STEP, Arg, Call, Const, Graph, Kind, Value, renamed
from graphnet.passes.rewrite import beside, cast_to, scalar, write
from graphnet.sdk import Assign, Optimizer, Shard, Sharding, Spec, Times, update_arguments


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
    for slot, (new, node) in _newest_states(graph).items():
        calls[f"{slot}:update"] = write(values, Assign(), "assign", (slot, new), (slot,), node)
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
            name = f"{parameter}:grad"
            gradient = cast_to(values[parameter], gradient, name, calls=calls, values=values)
            target, sharding = parameter, values[gradient].sharding
            if sharding is not None and sharding.count > 1:
                cut = _own_shard(values, parameter, sharding)
                calls[cut.name] = cut
                target = cut.name
            call = _optimize(values, optimizer, target, gradient, rates[scale], step)
            calls[call.name] = call
    return after_readers(replace(graph, calls=calls, values=values))


def chain_states(graph: Graph) -> Graph:
    """Let a layer that shares its states with an earlier one read the states that the earlier one made.

    In torch, a module that is called twice moves its running mean twice.
    """
    newest: dict[str, str] = {}  # slot -> its newest value
    calls = dict(graph.calls)
    for name, call in graph.calls.items():
        made = call.new_states()
        if made:
            slots = {state: str(call.ports()[state]) for state in made}
            if any(slot in newest for slot in slots.values()):
                args = tuple(renamed(arg, newest) for arg in call.args)
                calls[name] = replace(call, args=args)
            newest.update({slots[state]: new for state, new in made.items()})
    return replace(graph, calls=calls)


def _newest_states(graph: Graph) -> dict[str, tuple[str, str]]:
    """Return for the slot of each state its last new value, and the name of the call that makes it."""
    newest: dict[str, tuple[str, str]] = {}
    slots: dict[str, str] = {}  # new value -> the slot of its state
    for name, call in graph.calls.items():
        for state, new in call.new_states().items():
            old = str(call.ports()[state])
            slots[new] = slots.get(old, old)
            newest[slots[new]] = new, name
    return newest


def _rate(values: dict[str, Value], name: str, factor: float) -> Call:
    """A call that computes a parameter's own learning rate: the common one times a factor."""
    values[name] = Value(name, values[LR].spec, Kind.SCALE)
    return Call(name, Kind.SCALE, Times(factor=factor), "forward", (LR,), (name,), "lr", LR)


def _own_shard(values: dict[str, Value], parameter: str, sharding: Sharding) -> Call:
    """A call that copies this process's shard of a parameter, for an update of the shard alone."""
    of = values[parameter]
    rank = scalar(values, RANK, Spec((), torch.int64, of.spec.device))
    shard = of.sibling(":shard", Kind.SCALE, replace(of.spec, shape=(sharding.size,)))
    values[shard.name] = replace(shard, sharding=sharding)
    args, layer = (parameter, rank), Shard(sharding=sharding)
    return Call(
        name=shard.name,
        kind=Kind.SCALE,
        layer=layer,
        method="forward",
        args=args,
        results=(shard.name,),
        title="shard",
        node=of.node,
        port=shard.port,
    )


def _optimize(
    values: dict[str, Value],
    optimizer: Optimizer,
    target: str,
    gradient: str,
    lr: str,
    step: str,
) -> Call:
    """The update of a parameter, or of this process's shard of one."""
    of, spec = values[target], values[target].spec
    parameter = target if of.sharding is None else of.of
    named: dict[str, Arg] = {"parameter": target, "grad": gradient, "lr": lr, "step": step}
    slots = [target]
    for state, state_spec in optimizer.states(spec).items():
        if state_spec is None:
            named[state] = Const(None)
            continue
        named[state] = beside(values, parameter, state, state_spec, sharding=of.sharding)
        slots.append(f"{parameter}:{state}")
    args = update_arguments(optimizer, named)
    title = type(optimizer).__name__.lower()
    return write(values, optimizer, title, args, tuple(slots), of.node)


def after_readers(graph: Graph) -> Graph:
    """Let each update wait for every call that reads the old value of its slot or a view of it."""
    updates = [call for call in graph.calls.values() if call.kind is Kind.UPDATE]
    calls, views = dict(graph.calls), _views(graph)
    for call in updates:
        waiting: dict[str, None] = {}
        for slot in call.writes.values():
            waiting |= dict.fromkeys(_readers(graph, slot, views))
        waiting.pop(call.name, None)
        calls[call.name] = replace(call, after=tuple(waiting))
    return replace(graph, calls=calls)


def readers_of(graph: Graph, value: str) -> list[str]:
    """The calls that read a value or a view of it."""
    return _readers(graph, value, _views(graph))


def _readers(graph: Graph, value: str, views: Mapping[str, Sequence[str]]) -> list[str]:
    found: list[str] = []
    pending = [value]
    while pending:
        read = pending.pop()
        found += graph.readers.get(read, ())
        pending += views.get(read, ())
    return found


def _views(graph: Graph) -> dict[str, list[str]]:
    """Value -> its views, without the new values of slots."""
    updates = (call for call in graph.calls.values() if call.kind is Kind.UPDATE)
    written = {new for call in updates for new in call.writes}
    views: dict[str, list[str]] = {}
    for name, value in graph.values.items():
        if value.view_of is not None and name not in written:
            views.setdefault(value.view_of, []).append(name)
    return views
