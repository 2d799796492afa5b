"""Data parallel: several processes compute parts of a batch, and add up what differs between them.

Each process has the same weights and its own samples. A process computes its share of the loss
(passes/micro_batches.py), so its gradients are summands of the gradients of the whole batch. `data_parallel`
adds up the gradients over all processes, `share_outputs` the losses, and `sum_weights` the weights by which a
loss is divided; `average_states` writes the means of the new states of layers.

A process sends its gradients in buckets, in the order in which the reverse pass finishes them. It sends a
bucket as soon as the bucket is full, and waits for the sum after the reverse pass, so that both run at the
same time.

With several groups, the processes of each pair of the first group add up first, then those of the second.
Such sums have the same bits on all processes, and the bits of one process that adds up the same micro-batches
by pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from graphnet.graph import RANK, Arg, Call, Graph, Kind, Value, renamed
from graphnet.passes.rewrite import add_cast, dtype_of_value
from graphnet.sdk import (
    AllReduce,
    Assign,
    FromBucket,
    Layer,
    Processes,
    Spec,
    Times,
    Wait,
    Weighted,
)


def data_parallel(graph: Graph, *, processes: Processes) -> Graph:
    """Add up the gradients over all processes."""
    return graph if processes.count == 1 else _DataParallel(graph, processes).gradients()


def sum_weights(graph: Graph, *, processes: Processes) -> Graph:
    """Add up the divisors of losses with weights over all processes."""
    return graph if processes.count == 1 else _DataParallel(graph, processes).weights()


def share_outputs(graph: Graph, *, processes: Processes) -> Graph:
    """Add up the outputs over all processes, but for outputs that depend on no sample."""
    return graph if processes.count == 1 else _DataParallel(graph, processes).outputs()


def average_states(graph: Graph, *, processes: Processes) -> Graph:
    """Write the means over all processes of the new states of layers, such as a norm's running mean.

    It runs after the updates have been added. A state that depends on no sample is the same everywhere.
    """
    return graph if processes.count == 1 else _DataParallel(graph, processes).states()


class _DataParallel:
    def __init__(self, graph: Graph, processes: Processes) -> None:
        self.graph = graph
        self.processes = processes
        self.calls = dict(graph.calls)
        self.values = dict(graph.values)
        self.number = sum(isinstance(call.layer, AllReduce) for call in graph.calls.values())

    def gradients(self) -> Graph:
        found = self.summed(self.ready_gradients())
        gradients = {of: found[of] for of in self.graph.gradients}
        return replace(self.graph, calls=self.calls, values=self.values, gradients=gradients)

    def ready_gradients(self) -> dict[str, str]:
        """Parameter -> its gradient in the parameter's dtype, in the order in which they become ready."""
        position = {name: i for i, call in enumerate(self.graph.order()) for name in call.makes()}
        found: dict[str, str] = {}
        for parameter, gradient in sorted(
            self.graph.gradients.items(), key=lambda item: position.get(item[1], -1)
        ):
            of = self.values[parameter]
            if self.values[gradient].spec.dtype != of.spec.dtype:
                wanted, name = dtype_of_value(of), f"{parameter}:grad"
                gradient = add_cast(gradient, name, wanted, calls=self.calls, values=self.values)
            found[parameter] = gradient
        return found

    def weights(self) -> Graph:
        calls, self.calls = self.calls, {}
        sums: dict[str, str] = {}
        for call in calls.values():
            if isinstance(call.layer, Weighted):
                loss, weight, total = map(str, call.args)
                if total not in sums:
                    sums |= self.summed({total: total})
                call = replace(call, args=(loss, weight, sums[total]))
            self.calls[call.name] = call
        return replace(self.graph, calls=self.calls, values=self.values)

    def outputs(self) -> Graph:
        own = _depend_on_samples(self.graph)
        sums = self.summed({name: name for name in self.graph.outputs if name in own})
        named = tuple(sums.get(name, name) for name in self.graph.outputs)
        return replace(self.graph, calls=self.calls, values=self.values, outputs=named)

    def states(self) -> Graph:
        own = _depend_on_samples(self.graph)
        writes = {
            name: (slot, new)
            for name, call in self.calls.items()
            if isinstance(call.layer, Assign)
            for slot, new in [call.args]
            if isinstance(slot, str) and isinstance(new, str) and new in own
        }
        totals = self.summed(dict(writes.values()))
        for name, (slot, new) in writes.items():
            mean = f"{slot}:mean"
            layer = Times(factor=1.0 / self.processes.count)
            spec = self.values[new].spec
            self.add(mean, Kind.SCALE, layer, (totals[slot],), spec, "average", of=slot)
            call = self.calls.pop(name)  # it runs after what it reads
            args = tuple(renamed(arg, {new: mean}) for arg in call.args)
            self.calls[name] = replace(call, args=args)
        return replace(self.graph, calls=self.calls, values=self.values)

    def summed(self, items: dict[str, str]) -> dict[str, str]:
        """Add up values over all processes; a key is the parameter, state or output that one belongs to."""
        found: dict[str, str] = {}
        for keys in self.buckets(items):
            names = [items[key] for key in keys]
            for group in self.processes.groups:
                names = self.all_reduce(keys, names, group)
            found.update(zip(keys, names, strict=True))
        return found

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

    def all_reduce(self, keys: Sequence[str], names: Sequence[str], group: str) -> list[str]:
        """Add the calls that add up one bucket over a group; returns the names of the sums."""
        self.number += 1
        name = f"@all_reduce:{self.number}"
        specs = [self.values[one].spec for one in names]
        last = tuple(
            self.values[key].memory_format == torch.channels_last and len(spec.shape) == 4
            for key, spec in zip(keys, specs, strict=True)
        )
        whole = Spec((sum(spec.numel for spec in specs),), specs[0].dtype, specs[0].device)
        layer = AllReduce(group=group, channels_last=last)
        self.add(name, Kind.COLLECTIVE, layer, (tuple(names),), whole, "all_reduce")
        waited = f"{name}:wait"
        self.add(waited, Kind.WAIT, Wait(), (name,), whole, "wait")
        sums: list[str] = []
        start = 0
        for key, spec, channels_last in zip(keys, specs, last, strict=True):
            taken = f"{key}:reduced{self.number}"
            taking = FromBucket(start=start, shape=spec.shape, channels_last=channels_last)
            self.add(
                taken, Kind.SCALE, taking, (waited,), spec, "from_bucket", of=key, view_of=waited
            )
            sums.append(taken)
            start += spec.numel
        return sums

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
    ) -> None:
        """Add a call of `forward`, and its one result, which has the name of the call."""
        node = self.values[of].node if of else name
        self.values[name] = Value(name, spec, kind, view_of=view_of, node=node, of=of)
        self.calls[name] = Call(name, kind, layer, "forward", args, (name,), title, node)


def _depend_on_samples(graph: Graph) -> set[str]:
    """The values that depend on the inputs or targets, and so differ from process to process."""
    found = {*graph.inputs, *graph.targets, RANK}
    for call in graph.order():
        if not found.isdisjoint(call.reads()) and not isinstance(call.layer, AllReduce):
            found.update(call.makes())
    return found
