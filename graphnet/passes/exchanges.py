"""Exchanges: add the calls by which processes exchange values: sums, parts of sums, and gathered parts.

An exchange is a call that starts it and a call that waits for it. Values are sent in buckets, so that many
small tensors are sent at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from graphnet.graph import Arg, Call, Graph, Kind, Value
from graphnet.sdk import (
    AllGather,
    AllReduce,
    FromBucket,
    Layer,
    Processes,
    ReduceScatter,
    Sharding,
    ShardNorms,
    Spec,
    ToBucket,
    Wait,
)


class Exchanges:
    """The calls and values of a graph, to which exchanges are added.

    Args:
        graph: the graph; it is not changed.
        processes: those that exchange values.
    """

    def __init__(self, graph: Graph, processes: Processes) -> None:
        self.graph = graph
        self.processes = processes
        self.calls = dict(graph.calls)
        self.values = dict(graph.values)
        self._number = sum(
            call.kind is Kind.COLLECTIVE or isinstance(call.layer, ToBucket | ShardNorms)
            for call in graph.calls.values()
        )

    def changed(self, **fields: Any) -> Graph:
        """The graph with the exchanges that were added, and with other fields."""
        return replace(self.graph, calls=self.calls, values=self.values, **fields)

    def summed(self, items: dict[str, str]) -> dict[str, str]:
        """Add up values over all processes; a key is the parameter, state or output that one belongs to."""
        found: dict[str, str] = {}
        for keys in self.buckets(items):
            names = [items[key] for key in keys]
            for group, size in zip(self.processes.groups, self.processes.sizes, strict=True):
                names = self._all_reduce(keys, names, group, size)
            found.update(zip(keys, names, strict=True))
        return found

    def divided(self, items: dict[str, str], shardings: Mapping[str, Sharding]) -> dict[str, str]:
        """Add up gradients, of which each process gets its shard; a key is a parameter."""
        found: dict[str, str] = {}
        for keys in self.buckets(items):
            own = tuple(shardings[key] for key in keys)
            specs = [self.values[items[key]].spec for key in keys]
            count = sum(one.size for one in own) * self.processes.count
            bucket = self.named("to_bucket")
            whole = Spec((count,), specs[0].dtype, specs[0].device)
            names = tuple(items[key] for key in keys)
            self.add(bucket, Kind.SCALE, ToBucket(shardings=own), (names,), whole, "to_bucket")
            for group, size in zip(self.processes.groups, self.processes.sizes, strict=True):
                count //= size
                scatter = ReduceScatter(group=group, size=size)
                bucket = self._exchange(scatter, (bucket,), whole, count, "reduce_scatter")
            parts = [replace(whole, shape=(one.size,)) for one in own]
            takes = zip(keys, parts, (False,) * len(keys), own, strict=True)
            found.update(zip(keys, self._taken(bucket, takes), strict=True))
        return found

    def gathered(self, names: Sequence[str]) -> str:
        """Send the shards of each process to all; returns the name of the bucket with all of them."""
        specs = [self.values[name].spec for name in names]
        count, arg = sum(spec.numel for spec in specs), tuple(names)
        bucket = ""
        groups = zip(self.processes.groups, self.processes.sizes, strict=True)
        for group, size in reversed([*groups]):
            count *= size
            layer = AllGather(group=group, size=size)
            bucket = self._exchange(layer, (arg,), specs[0], count, "all_gather")
            arg = (bucket,)
        return bucket

    def buckets(self, items: dict[str, str]) -> Iterable[list[str]]:
        """Cut the keys into runs of one dtype, each as soon as it has `bucket_bytes`."""
        bucket: list[str] = []
        size_bytes, dtype = 0, None
        for key, name in items.items():
            spec = self.values[name].spec
            if bucket and (spec.dtype != dtype or size_bytes >= self.processes.bucket_bytes):
                yield bucket
                bucket, size_bytes = [], 0
            bucket.append(key)
            size_bytes, dtype = size_bytes + spec.size_bytes, spec.dtype
        if bucket:
            yield bucket

    def _all_reduce(
        self, keys: Sequence[str], names: Sequence[str], group: str, size: int
    ) -> list[str]:
        """Add the calls that add up one bucket over a group; returns the names of the sums."""
        specs = [self.values[one].spec for one in names]
        last = tuple(is_channels_last(self.values[key]) for key in keys)
        layer = AllReduce(group=group, size=size, channels_last=last)
        count = sum(spec.numel for spec in specs)
        bucket = self._exchange(layer, (tuple(names),), specs[0], count, "all_reduce")
        return self._taken(bucket, zip(keys, specs, last, (None,) * len(keys), strict=True))

    def _taken(
        self, bucket: str, takes: Iterable[tuple[str, Spec, bool, Sharding | None]]
    ) -> list[str]:
        """Add the calls that take values from a bucket, one after the other; returns the values' names.

        Of each value, `takes` has the key, the spec, whether its elements lie in the order N H W C, and how
        the tensor is divided of which it is a shard.
        """
        names: list[str] = []
        start = 0
        for key, spec, last, sharding in takes:
            layer = FromBucket(start=start, shape=spec.shape, channels_last=last)
            names.append(f"{key}:reduced{self._number}")
            self.add(
                *(names[-1], Kind.SCALE, layer, (bucket,), spec, "from_bucket"),
                of=key,
                view_of=bucket,
                sharding=sharding,
            )
            start += spec.numel
        return names

    def _exchange(
        self, layer: Layer, args: tuple[Arg, ...], like: Spec, count: int, title: str
    ) -> str:
        """Add the calls that start an exchange and wait for it; its result has `count` elements."""
        name = self.named(title)
        spec = Spec((count,), like.dtype, like.device)
        self.add(name, Kind.COLLECTIVE, layer, args, spec, title)
        self.add(waited := f"{name}:wait", Kind.WAIT, Wait(), (name,), spec, "wait")
        return waited

    def named(self, title: str) -> str:
        """A new name for a call."""
        self._number += 1
        return f"@{title}:{self._number}"

    def add(
        self,
        name: str,
        kind: Kind,
        layer: Layer,
        args: tuple[Arg, ...],
        spec: Spec,
        title: str,
        *,
        of: str = "",
        view_of: str | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        """Add a call of `forward`, and its one result, which has the name of the call."""
        node = self.values[of].node if of else name
        value = Value(name, spec, kind, view_of=view_of, node=node, of=of, sharding=sharding)
        self.values[name] = value
        self.calls[name] = Call(name, kind, layer, "forward", args, (name,), title, node)


def is_channels_last(value: Value) -> bool:
    """Whether the elements of a value lie in the order N H W C."""
    return value.memory_format == torch.channels_last and len(value.spec.shape) == 4
