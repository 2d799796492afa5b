"""Hoist constants: calls that depend on no input run once for many runs, in a plan of their own.

The casts of weights, folded weights and all other calls that read only parameters and states move into the
graph's prelude. The graph takes their results as values of Kind.PRELUDE. The executor runs the prelude
before the first run, and again after the weights have changed.
"""

from __future__ import annotations

from dataclasses import replace

from graphnet.graph import SLOTS, Graph, Kind

_FIXED = SLOTS | {Kind.CONSTANT}


def hoist_constants(graph: Graph) -> Graph:
    """Move the calls that read only parameters, states and constants into the graph's prelude.

    The graph must have no updates. A call whose result is an output stays, because the caller may write
    to an output.
    """
    fixed = {name for name, value in graph.values.items() if value.kind in _FIXED}
    early = {}
    for name, call in graph.calls.items():
        reads, results = set(call.reads()), set(call.makes())
        if reads and reads <= fixed and results.isdisjoint(graph.outputs):
            early[name] = call
            fixed |= results
    if not early:
        return graph
    late = {name: call for name, call in graph.calls.items() if name not in early}
    read = {name for call in late.values() for name in call.reads()}
    made = [name for call in early.values() for name in call.makes()]
    taken = tuple(name for name in made if name in read)
    needed = {*made, *(name for call in early.values() for name in call.reads())}
    prelude = Graph(
        calls=early,
        values={name: value for name, value in graph.values.items() if name in needed},
        inputs=(),
        outputs=taken,
        output_names=taken,
    )
    values = {name: value for name, value in graph.values.items() if name not in made}
    for name in taken:
        values[name] = replace(graph.values[name], kind=Kind.PRELUDE, view_of=None)
    return replace(graph, calls=late, values=values, prelude=prelude)
