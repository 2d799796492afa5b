"""Buckets: which values processes send and receive, and which tensors their shards belong to."""

from __future__ import annotations

from graphnet.graph import Call, Graph, flatten
from graphnet.plan.verify.spreads import rule_of
from graphnet.sdk import (
    AllGather,
    AllReduce,
    AssignGathered,
    Cast,
    FromBucket,
    ReduceScatter,
    Scaled,
    Shard,
    Sharding,
    ToBucket,
    Wait,
)


class Buckets:
    """The buckets of a graph, in which processes exchange several values at once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def sent(self, call: Call) -> str | None:
        """The value that a call takes from a bucket after an exchange; None for another call.

        It takes the sum of the value over a group or a shard of the sum over all processes. AssignGathered
        takes the value of all processes.
        """
        layer = call.layer
        if not isinstance(layer, FromBucket | AssignGathered):
            return None
        packing, place = self._packing(str(call.args[-1])), 0
        if packing is None:
            return None
        taken = (layer.shape, layer.channels_last) if isinstance(layer, FromBucket) else None
        for number, name in enumerate(packing.reads()):
            spec, packer = self.graph.values[name].spec, packing.layer
            packed: object = None
            match packer:
                case AllReduce():
                    size, packed = spec.numel, (spec.shape, packer.channels_last[number])
                case ToBucket():
                    size = packer.shardings[number].size
                    packed = ((size,), False)
                case AllGather():
                    size = spec.numel
            if (place, packed) == (layer.start, taken):
                return name
            place += size
        return None

    def _packing(self, bucket: str) -> Call | None:
        """The call that puts values into a bucket, before processes exchange it; None for another value."""
        producers = self.graph.producers
        call = producers.get(bucket)
        while call is not None:
            reads = [*call.reads()]
            first = producers.get(reads[0])
            of_bucket = len(reads) == 1 and first is not None and isinstance(first.layer, Wait)
            if not (
                isinstance(call.layer, Wait | ReduceScatter)
                or (isinstance(call.layer, AllGather) and of_bucket)
            ):
                break
            call = first
        return (
            call
            if call is not None and isinstance(call.layer, AllReduce | ToBucket | AllGather)
            else None
        )

    def sharding(self, name: str) -> Sharding | None:
        """How the tensor is divided of which a value is this process's shard; None for no shard."""
        call = self.graph.producers.get(name)
        while call is not None and isinstance(rule_of(call.layer), Scaled | Cast):
            reads = tuple(flatten((call.args[0],)))
            name = reads[[*call.makes()].index(name)]
            call = self.graph.producers.get(name)
        if call is None:
            return None
        if isinstance(call.layer, Shard):
            return call.layer.sharding
        if isinstance(call.layer, FromBucket) and (sent := self.sent(call)) is not None:
            packing = self._packing(str(call.args[0]))
            if packing is not None and isinstance(packing.layer, ToBucket):
                return packing.layer.shardings[[*packing.reads()].index(sent)]
        return None

    def cut_from(self, name: str) -> str | None:
        """The value of which a value is this process's shard; None if it is no copy of one."""
        call = self.graph.producers.get(name)
        return str(call.args[0]) if call is not None and isinstance(call.layer, Shard) else None
