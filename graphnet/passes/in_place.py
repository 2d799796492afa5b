"""In place: a call writes its result into the storage of an argument that no later call reads.

A layer declares which result may overwrite which argument (`overwrites`) and has the methods `forward_` or
`backward_` that do it. The pass chooses such a method if the argument's storage is no source and no output,
holds no other value that is read now or later, and result and argument have the same shape, dtype and
layout. The storage would have been freed at this call, so no lifetime gets longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphnet.graph import (
    Aliases,
    Call,
    Const,
    Graph,
    Overwrites,
    aliases,
    base,
    memory_use,
)
from graphnet.sdk import IN_PLACE, Layer


def in_place(graph: Graph) -> Graph:
    """Let calls use their in-place methods, where the order of the calls allows it."""
    known = aliases(graph)
    order = graph.order()
    fits = overwritable(known)
    use = memory_use(order, known.values, graph.outputs, overwrites=fits)
    root = use.lifetimes.root
    readers = _readers(order, known)
    calls, values = dict(graph.calls), dict(known.values)
    for call in order:
        pairs = fits(call)
        numbers = [use.storages.number[result] for result, _ in pairs]
        if not pairs or any(root[number] == number for number in numbers):
            continue
        earlier = {n: None for _, target in pairs for n in readers[base(target, known.values)]}
        after = dict.fromkeys(call.after) | earlier
        after.pop(call.name, None)
        for result, target in pairs:
            values[result] = replace(values[result], view_of=target)
        calls[call.name] = replace(call, in_place=True, writes=dict(pairs), after=tuple(after))
    return replace(graph, calls=calls, values=values)


def overwritable(known: Aliases) -> Overwrites:
    """A function: call -> the (result, argument) pairs that its layer and the specs allow.

    Whether the lifetimes allow them too is decided by `in_place`.
    """

    def pairs(call: Call) -> tuple[tuple[str, str], ...]:
        declared = _declared(call)
        return declared if all(_fits(one, known) for one in declared) else ()

    return pairs


def _declared(call: Call) -> tuple[tuple[str, str], ...]:
    """The (result, argument) pairs of a call's in-place method; empty if a result or argument is absent."""
    layer = call.layer
    if not isinstance(layer, Layer) or call.method not in IN_PLACE or call.in_place:
        return ()
    arguments = dict(zip(layer.signature.of(call.method), call.args, strict=True))
    results = _results(call, layer)
    found: list[tuple[str, str]] = []
    for result, argument in layer.overwrites.items():
        if (result in layer.outputs + layer.saves) != (call.method == "forward"):
            continue
        slot, arg = results.get(result), arguments[argument]
        target = arg[0] if isinstance(arg, tuple) else arg
        if not isinstance(slot, str) or isinstance(target, Const):
            return ()
        found.append((slot, target))
    return tuple(found)


def _results(call: Call, layer: Layer) -> Mapping[str, object]:
    if call.method == "forward":
        return dict(zip(layer.outputs + layer.saves, call.results, strict=False))
    names = [f"grad_{name}" for name in layer.signature.tensors if name not in layer.updates]
    # The names may still contain states that are only read; these have no gradient.
    return dict(zip(names, call.results, strict=True)) if len(names) == len(call.results) else {}


def _fits(pair: tuple[str, str], known: Aliases) -> bool:
    """Whether result and argument have the same spec and layout, and the argument fills its storage."""
    result, target = (known.values[name] for name in pair)
    home = known.values[base(target.name, known.values)]
    return (
        result.view_of is None
        and (result.spec, result.layout) == (target.spec, target.layout)
        and home.spec.size_bytes == target.spec.size_bytes
        and not known.unsure & {result.name, target.name, home.name}
    )


def _readers(order: tuple[Call, ...], known: Aliases) -> dict[str, dict[str, None]]:
    """Storage -> the calls that read a value in it, in the order of the calls.

    A call that writes over a result of an earlier write waits for the readers of that result alone: the
    earlier write, whose result it reads, has waited for the readers of what was there before.
    """
    found: dict[str, dict[str, None]] = {name: {} for name in known.values}
    for call in order:
        for name in call.reads():
            found[base(name, known.values)][call.name] = None
    return found
