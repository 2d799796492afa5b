"""Dead code: remove the calls and results that no output, gradient or update depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphnet.graph import SOURCES, Call, Graph, Kind, Slot


def dead_code(graph: Graph) -> Graph:
    """Remove the calls that no output, gradient or update depends on, and the results nobody reads."""
    needed = {*graph.outputs, *graph.gradients.values()}
    alive: set[str] = set()
    for call in reversed(list(graph.calls.values())):
        if call.kind is Kind.UPDATE or any(name in needed for name in call.makes()):
            alive.add(call.name)
            needed.update(call.reads())
    heirs: dict[str, str] = {}  # a call that is removed -> the first that computes the same again
    for call in graph.calls.values():
        if call.name in alive and call.repeats and call.repeats not in alive:
            heirs.setdefault(call.repeats, call.name)
    calls = {
        name: _inherited(_trimmed(call, needed, alive), heirs)
        for name, call in graph.calls.items()
        if name in alive
    }
    if len(calls) == len(graph.calls) and all(calls[n] is c for n, c in graph.calls.items()):
        return graph
    made = {name for call in calls.values() for name in call.makes()}
    values = {
        name: value for name, value in graph.values.items() if value.kind in SOURCES or name in made
    }
    return replace(graph, calls=calls, values=values)


def _trimmed(call: Call, needed: set[str], alive: set[str]) -> Call:
    """The call without the results that nobody reads; the same object if every result is read."""
    results = tuple(_kept(slot, needed, call) for slot in call.results)
    after = tuple(one for one in call.after if one in alive)
    if (results, after) == (call.results, call.after):
        return call
    return replace(call, results=results, after=after)


def _inherited(call: Call, heirs: Mapping[str, str]) -> Call:
    """The call with heirs in the place of calls that are removed; the same object if it names none."""
    if call.repeats not in heirs and call.backward_of not in heirs:
        return call
    original = heirs.get(call.repeats, call.repeats)
    return replace(
        call,
        repeats="" if original == call.name else original,
        backward_of=heirs.get(call.backward_of, call.backward_of),
    )


def _kept(slot: Slot, needed: set[str], call: Call) -> Slot:
    """The result, or None if nobody reads it; the result of an update stays."""
    if isinstance(slot, tuple):
        return tuple(name if name in needed else None for name in slot)
    return slot if slot in needed or slot in call.writes else None
