"""Sync statistics: layers that compute statistics of a batch compute them over all processes.

A layer that states itself in two parts (`Layer.across_processes`) is replaced by them: the first computes the
statistics of this process's samples, then all processes gather them, and the second reads those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphnet.graph import Arg, Call, Graph, Kind, Value, observe, spec_of
from graphnet.passes.exchanges import Exchanges
from graphnet.sdk import GatherStatistics, Layer, Processes


def sync_statistics(graph: Graph, *, processes: Processes) -> Graph:
    """Replace the layers that compute statistics over all processes by their two parts.

    Args:
        graph: a forward graph.
        processes: those that compute the step together.
    """
    if processes.count == 1:
        return graph
    exchanges = Exchanges(graph, processes)
    calls, exchanges.calls = exchanges.calls, {}
    for call in calls.values():
        layer = call.layer
        parts = layer.across_processes() if isinstance(layer, Layer) else None
        if parts is None or not call.new_states():  # a call with frozen states computes none
            exchanges.calls[call.name] = call
        else:
            _split(call, parts, exchanges)
    return exchanges.changed()


def _split(call: Call, parts: tuple[Layer, Layer], exchanges: Exchanges) -> None:
    """Add the three calls that take the place of one."""
    first, second = parts
    group, *_ = exchanges.processes.groups
    gather = GatherStatistics(group=group, size=exchanges.processes.count)
    named = call.ports()
    own = _result(call, "statistics", first, [named[n] for n in first.signature.forward], exchanges)
    named["statistics"] = _result(call, "gathered", gather, [own], exchanges)
    exchanges.calls[call.name] = replace(
        call,
        layer=second,
        args=tuple(named[name] for name in second.signature.forward),
        results=(call.results[0], *call.new_states().values()),
    )


def _result(of: Call, suffix: str, layer: Layer, args: Sequence[Arg], exchanges: Exchanges) -> str:
    """Add a call of a layer before the call `of`; returns the name of its one result."""
    name, values = f"{of.name}:{suffix}", exchanges.values
    names = layer.signature.tensors
    specs = {one: spec_of(arg, values) for one, arg in zip(names, args, strict=True)}
    (seen,) = observe(layer, "forward", specs)
    device = next(spec.device for spec in specs.values() if spec is not None)
    values[name] = Value(name, seen.spec.on(device), Kind.LAYER, node=of.node, port=suffix)
    exchanges.calls[name] = replace(
        of, name=name, layer=layer, args=tuple(args), results=(name,), title=suffix
    )
    return name
