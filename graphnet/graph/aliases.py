"""Aliases: which results share storage with each other, and where that depends on strides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphnet.graph.ir import Graph, Value
from graphnet.graph.meta_run import flat, run_on_meta
from graphnet.sdk import Layer


@dataclass(frozen=True, slots=True)
class Aliases:
    """What the values of a graph share.

    `values` is the graph's table in which also results that share a storage of their own say so.
    `unsure` are the values that must not be overwritten: two elements of them lie in one place, or
    strides decide whether they share storage with others.
    """

    values: Mapping[str, Value]
    unsure: frozenset[str]


def aliases(graph: Graph) -> Aliases:
    """Look at every call of the graph that is a layer's forward, backward or inference."""
    values = dict(graph.values)
    unsure: set[str] = set()
    for call in graph.calls.values():
        if not isinstance(call.layer, Layer) or call.writes:
            continue
        results = list(flat(call.results))
        arguments = list(call.reads())
        for name, seen in zip(results, run_on_meta(call, graph.values), strict=True):
            if name is None:
                continue
            if seen.overlaps:
                unsure.add(name)
            mates = [results[i] for i in seen.results if results[i] is not None]
            if mates and not seen.unsettled and values[name].view_of is None:
                values[name] = replace(values[name], view_of=mates[0])
            elif seen.unsettled:
                unsure |= {name, *(arguments[i] for i in seen.arguments)}
                unsure.update(mate for mate in mates if mate is not None)
    return Aliases(values, frozenset(unsure | {base(name, values) for name in unsure}))


def base(name: str, values: Mapping[str, Value]) -> str:
    """The value whose storage this one lives in: itself, unless it is a view."""
    while (viewed := values[name].view_of) is not None:
        name = viewed
    return name
