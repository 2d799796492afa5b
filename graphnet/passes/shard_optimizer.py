"""Shard optimizer: each process keeps and updates a part of the optimizer's state.

Each process gets its shard of the sum of each gradient (passes/data_parallel.py), updates its shard of the
parameter (passes/update.py), and sends it to all others (`gather_parameters`). So the optimizer's states of a
process have 1/N of the elements. Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training
trillion parameter models", section 5.1, with shards of each parameter in place of shards of all together.

Rules that compute an element from others, such as muon, keep their whole states in each process.
"""

from __future__ import annotations

from typing import Literal

from graphnet.description import UpdateSettings
from graphnet.graph import Graph, Kind
from graphnet.passes.exchanges import Exchanges, is_channels_last
from graphnet.passes.rewrite import widest, write
from graphnet.passes.update import after_readers
from graphnet.sdk import AssignGathered, Processes, Sharding, ShardNorms, Spec


def shardings(
    graph: Graph, *, updates: UpdateSettings, processes: Processes, pieces: int
) -> dict[str, Sharding]:
    """Parameter -> how it and the optimizer's states are divided, for those that are divided.

    Args:
        graph: a graph with a reverse pass.
        updates: the optimizer, and whether its state is divided.
        processes: those that compute the step together.
        pieces: the number of pieces in which norms are computed, a multiple of the number of processes.
    """
    if updates.shard is None:
        return {}
    found: dict[str, Sharding] = {}
    for parameter in graph.gradients:
        value = graph.values[parameter]
        if updates.rule(parameter, value.spec)[0].elementwise:
            last, sizes = is_channels_last(value), processes.sizes
            found[parameter] = Sharding(value.spec.shape, last, sizes, pieces)
    return found


def gather_parameters(graph: Graph, *, processes: Processes) -> Graph:
    """Send the shards of parameters that this process has updated, and write those of all processes."""
    updated = _updated_shards(graph)
    if not updated:
        return graph
    exchanges = Exchanges(graph, processes)
    calls, values = exchanges.calls, exchanges.values
    for parameters in exchanges.buckets(updated):
        bucket = exchanges.gathered([updated[one] for one in parameters])
        start = 0
        for parameter in parameters:
            sharding = values[updated[parameter]].sharding
            assert sharding is not None
            rule, args = AssignGathered(start=start, sharding=sharding), (parameter, bucket)
            call = write(values, rule, "gather", args, (parameter,), values[parameter].node)
            calls[call.name] = call
            start += sharding.size
    return after_readers(exchanges.changed())


def _updated_shards(graph: Graph) -> dict[str, str]:
    """Parameter -> its updated shard, in the order in which the gradients become ready."""
    updated = {
        graph.values[target].of: new
        for call in graph.calls.values()
        if call.kind is Kind.UPDATE
        for new, target in call.writes.items()
        if graph.values[target].kind is Kind.SCALE
    }
    ready = dict.fromkeys(one.of for one in graph.values.values() if one.sharding is not None)
    return {parameter: updated[parameter] for parameter in ready if parameter in updated}


def norms_of_gradients(
    graph: Graph, order: Literal["2", "inf"], *, processes: Processes
) -> tuple[Graph, tuple[str, ...]]:
    """Find values whose norm is that of all gradients together, and which are equal in all processes.

    They are the whole gradients, and one value with the norms of the pieces of all divided gradients.

    Args:
        graph: a graph with a reverse pass.
        order: "2", or "inf" for the largest magnitude.
        processes: those that compute the step together.

    Returns:
        The graph with the calls that compute them, and their names.
    """
    divided = {
        name: one
        for name in graph.gradients.values()
        if (one := graph.values[name].sharding) is not None
    }
    if not divided:
        return graph, tuple(graph.gradients.values())
    exchanges = Exchanges(graph, processes)
    values = exchanges.values
    sharding = next(iter(divided.values()))
    specs = [values[name].spec for name in divided]
    spec = Spec((sharding.pieces // sharding.count,), widest(specs), specs[0].device)
    layer = ShardNorms(order=order, shardings=tuple(divided.values()))
    exchanges.add(
        norms := exchanges.named("norms"), Kind.SCALE, layer, (tuple(divided),), spec, "norms"
    )
    if sharding.count > 1:
        norms = exchanges.gathered([norms])
    whole = [name for name in graph.gradients.values() if name not in divided]
    return exchanges.changed(), (*whole, norms)
