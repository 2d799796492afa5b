"""Absorb casts: a kernel that rounds data itself reads it before the cast, which then nobody needs.

On a GPU, the launch of a cast takes longer than the cast of a small batch.
"""

from __future__ import annotations

from dataclasses import replace

from graphnet.graph import Arg, Graph
from graphnet.passes.differentiate import live_values, reads_live
from graphnet.passes.rewrite import before_cast, bound_arguments, rewire
from graphnet.sdk import Kernel


def absorb_casts(graph: Graph) -> Graph:
    """Let each kernel read, in the places that its `casts` names, the values before casts.

    This holds for data, which depends on no parameter: nobody needs a gradient of it.
    """
    calls, values = dict(graph.calls), dict(graph.values)
    live = live_values(graph)
    for name, call in graph.calls.items():
        if not isinstance(call.layer, Kernel) or not call.layer.casts:
            continue
        bound = bound_arguments(call)
        found: dict[str, Arg] = {
            port: source
            for port in call.layer.casts
            if not reads_live(bound[port], live)
            and (source := _before_cast(bound[port], graph)) is not None
        }
        if found:
            calls[name] = rewire(call, {**bound, **found}, values)
    return replace(graph, calls=calls, values=values)


def _before_cast(arg: Arg, graph: Graph) -> str | None:
    """The value before a cast to a narrower dtype; None if there is no such cast."""
    source = before_cast(arg, graph) if isinstance(arg, str) else None
    if source is None:
        return None
    before, after = (graph.values[name].spec.dtype.itemsize for name in (source, str(arg)))
    return source if after < before else None
