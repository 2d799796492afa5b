"""Spreads: which values of a step differ from process to process, and how.

A value is equal in all processes unless it depends on their samples or on their numbers. All-reduces add up
values that differ: after the sums over all groups, the result is equal in all processes. After
reduce-scatters over all groups, each process has its shard of the sum; all-gathers make whole values of
shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphnet.graph import RANK, Call, Graph, Kind
from graphnet.sdk import (
    AddTo,
    AllGather,
    AllReduce,
    Cast,
    Clear,
    Definition,
    Exchange,
    FromBucket,
    GatherStatistics,
    IfFinite,
    MultiTensorKernel,
    Optimizer,
    Processes,
    ReduceScatter,
    Scaled,
    Shard,
    ShardNorms,
    Wait,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a value differs from process to process.

    Attributes:
        sums: the number of groups over which it was added up.
        cuts: the number of groups over which it was divided: each process has another part of it.
    """

    sums: int = 0
    cuts: int = 0


_SUMMAND = Spread()


class Spreads:
    """The values of a graph that differ from process to process, and the faults of the exchanges."""

    def __init__(self, graph: Graph, processes: Processes) -> None:
        self.graph = graph
        self.processes = processes
        self.groups = processes.groups
        self.shard = Spread(len(self.groups), len(self.groups))  # of a value equal in all processes
        self.of: dict[str, Spread] = dict.fromkeys((*graph.inputs, *graph.targets, RANK), _SUMMAND)
        self.faults: list[str] = []
        for call in graph.calls.values():
            if isinstance(rule_of(call.layer), AddTo | Clear):
                self.of.update(dict.fromkeys(call.writes.values(), _SUMMAND))
        for name, value in graph.values.items():
            if value.kind is Kind.STATE and value.sharding is not None and value.sharding.count > 1:
                self.of[name] = self.shard
        for call in graph.order():
            spread = self._made(call)
            if spread is not None:
                self.of.update(dict.fromkeys(call.makes(), spread))

    def _made(self, call: Call) -> Spread | None:
        """How the results of a call differ; None if they are equal in all processes."""
        mine = {name: self.of[name] for name in call.reads() if name in self.of}
        if isinstance(call.layer, Exchange):
            return self._exchanged(call, call.layer, mine)
        if isinstance(call.layer, Shard):
            if [*mine] != [RANK] or call.args[-1] != RANK:
                self.faults.append(
                    f"{call.name!r} cuts a value that differs from process to process"
                )
            return self.shard
        if not mine:
            return None
        if isinstance(call.layer, Wait | FromBucket):
            return next(iter(mine.values()))
        if self._keeps_shards(call, mine):
            return self.shard
        for name, spread in mine.items():
            if 0 < spread.sums < len(self.groups):
                self.faults.append(
                    f"{call.name!r} reads {name!r}, which was added up over some groups only"
                )
        return _SUMMAND

    def _keeps_shards(self, call: Call, mine: Mapping[str, Spread]) -> bool:
        """Whether a call computes the shard of its results from the same shards of its arguments."""
        layer = rule_of(call.layer)
        layer = rule_of(layer.rule) if isinstance(layer, IfFinite) else layer
        by_element = (isinstance(layer, Optimizer) and layer.elementwise) or isinstance(
            layer, Cast | Scaled | ShardNorms
        )
        return by_element and {*mine.values()} == {self.shard}

    def _exchanged(self, call: Call, layer: Exchange, mine: Mapping[str, Spread]) -> Spread | None:
        """How the results of an exchange differ; adds its faults."""
        count = len(self.groups)
        same = [name for name in call.reads() if name not in mine]
        if same:
            self.faults.append(
                f"{call.name!r} exchanges {same[0]!r}, which is the same on all processes"
            )
        if len({*mine.values()}) > 1:
            self.faults.append(f"{call.name!r} exchanges values that differ in different ways")
        found = next(iter(mine.values()), _SUMMAND)
        match layer:
            case AllReduce():
                done, fits = found.sums, found.cuts == 0
                made = Spread(found.sums + 1, 0)
            case ReduceScatter():
                done, fits = found.sums, found.cuts == found.sums
                made = Spread(found.sums + 1, found.cuts + 1)
            case AllGather():
                done, fits = found.cuts - 1, found.sums == count
                made = Spread(found.sums, found.cuts - 1)
            case GatherStatistics():
                done, fits = 0, found == _SUMMAND and count == 1
                made = Spread(1, 0) if call.method == "forward" else _SUMMAND
            case _:
                self.faults.append(f"{call.name!r} is an exchange of an unknown kind")
                return _SUMMAND
        if not fits or not 0 <= done < count:
            self.faults.append(f"{call.name!r} exchanges what is no summand, or no shard")
        elif layer.group != self.groups[done]:
            self.faults.append(
                f"{call.name!r} runs over the group {layer.group!r}, which is not the next one"
            )
        elif layer.size != self.processes.sizes[done]:
            self.faults.append(f"{call.name!r} divides by {layer.size}, expected the group's size")
        whole = made.sums >= count and made.cuts <= 0
        return None if whole else made


def rule_of(layer: Definition) -> Definition:
    """The rule of each of the calls that a multi-tensor kernel stands for; of others, the layer itself."""
    return layer.rule if isinstance(layer, MultiTensorKernel) else layer
