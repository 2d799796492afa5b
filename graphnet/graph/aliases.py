"""Aliases: which values share storage, and for which values that depends on strides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphnet.graph.ir import Graph, Value
from graphnet.graph.meta_run import flat, run_on_meta
from graphnet.sdk import Layer


@dataclass(frozen=True, slots=True)
class Aliases:
    """Which values of a graph share storage.

    `values` is the graph's table of values, where `view_of` is also set for results of one call that share
    a storage with each other. `unsure` are the values that must not be overwritten: two of their elements
    have the same address, or strides decide whether they share storage with others.
    """

    values: Mapping[str, Value]
    unsure: frozenset[str]


def aliases(graph: Graph) -> Aliases:
    """Find the shared storages by running each layer's call of the graph on meta tensors."""
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
    """The value whose storage a value uses: itself, unless it is a view."""
    while (viewed := values[name].view_of) is not None:
        name = viewed
    return name
