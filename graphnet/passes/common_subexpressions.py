"""Common subexpressions: two equal calls become one.

Two calls are equal if they run the same method of equal definitions on the same values. Layers are pure, so
equal calls give the same bits. Random layers read different keys, so they are not equal. Backward calls stay,
and so do the calls that have one: then each backward call belongs to a call of the graph, and the rules of a
training step (plan/verify/training.py) hold after this pass too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphnet.graph import Arg, Call, Const, Graph, Kind, renamed


def common_subexpressions(graph: Graph) -> Graph:
    """Remove each call that repeats an earlier one; its readers read the results of the earlier call."""
    names: dict[str, str] = {}  # repeated value -> the first value
    stand_ins: dict[str, str] = {}  # repeated call -> the first call
    first: dict[object, Call] = {}
    have_backward = {call.backward_of for call in graph.calls.values()}
    for call in graph.calls.values():
        if call.kind in (Kind.BACKWARD, Kind.UPDATE) or call.name in have_backward:
            continue
        args = tuple(_key(renamed(arg, names)) for arg in call.args)
        same = first.setdefault((call.kind, call.layer, call.method, args), call)
        if same is not call and _stands_for(same, call, graph):
            names.update(zip(_leaves(call), _leaves(same), strict=True))
            stand_ins[call.name] = same.name
    names.pop("", None)
    if not stand_ins:
        return graph
    calls = {
        name: replace(
            call,
            args=tuple(renamed(arg, names) for arg in call.args),
            after=tuple(dict.fromkeys(stand_ins.get(one, one) for one in call.after)),
        )
        for name, call in graph.calls.items()
        if name not in stand_ins
    }
    values = {
        name: replace(value, view_of=names.get(str(value.view_of), value.view_of))
        for name, value in graph.values.items()
        if name not in names
    }
    gradients = {name: names.get(value, value) for name, value in graph.gradients.items()}
    return replace(graph, calls=calls, values=values, gradients=gradients)


def _key(arg: Arg) -> object:
    """The argument in a form that compares by value and can be hashed."""
    match arg:
        case Const(value=Mapping() as specs):
            return ("specs", tuple(specs.items()))
        case _:
            return arg


def _leaves(call: Call) -> tuple[str, ...]:
    """The results by position; "" for a result that nobody reads."""
    return tuple(
        name or ""
        for slot in call.results
        for name in (slot if isinstance(slot, tuple) else (slot,))
    )


def _stands_for(one: Call, other: Call, graph: Graph) -> bool:
    """Whether `one` has every result that `other` has, and no result of `other` is a graph output."""
    pairs = zip(_leaves(one), _leaves(other), strict=True)
    return all(mine or not theirs for mine, theirs in pairs) and not any(
        name in graph.outputs for name in other.makes()
    )
