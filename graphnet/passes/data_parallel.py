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

from collections.abc import Mapping
from dataclasses import replace

from graphnet.graph import RANK, Graph, Kind, renamed
from graphnet.passes.exchanges import Exchanges
from graphnet.passes.rewrite import add_cast, cast_to, dtype_of_value
from graphnet.sdk import Assign, Exchange, Processes, Sharding, Times, Weighted

_NOTHING: Mapping[str, Sharding] = {}


def data_parallel(
    graph: Graph, *, processes: Processes, shardings: Mapping[str, Sharding] = _NOTHING
) -> Graph:
    """Add up the gradients over all processes.

    Args:
        graph: a graph with a reverse pass.
        processes: those that compute the step together.
        shardings: for parameters whose optimizer's state is divided, how: each process then gets its shard of
            the sum.
    """
    return _DataParallel(graph, processes).gradients(shardings)


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


class _DataParallel(Exchanges):
    def gradients(self, shardings: Mapping[str, Sharding]) -> Graph:
        ready = self.ready_gradients()
        if self.processes.count == 1:  # norms are computed in the pieces of shards all the same
            for of, name in ready.items():
                self.values[name] = replace(self.values[name], sharding=shardings.get(of))
            return self.changed(gradients={of: ready[of] for of in self.graph.gradients})
        sent = {of: self.narrowed(of, name) for of, name in ready.items()}
        own = {of: name for of, name in sent.items() if of in shardings}
        found = self.summed({of: name for of, name in sent.items() if of not in shardings})
        found |= self.divided(own, shardings)
        found = {of: self.cast(of, name, f"{of}:received") for of, name in found.items()}
        return self.changed(gradients={of: found[of] for of in self.graph.gradients})

    def ready_gradients(self) -> dict[str, str]:
        """Parameter -> its gradient in the parameter's dtype, in the order in which they become ready."""
        position = {name: i for i, call in enumerate(self.graph.order()) for name in call.makes()}
        by_time = sorted(self.graph.gradients.items(), key=lambda item: position.get(item[1], -1))
        return {of: self.cast(of, name, f"{of}:grad") for of, name in by_time}

    def cast(self, of: str, gradient: str, name: str) -> str:
        """A gradient in the dtype of its parameter."""
        return cast_to(self.values[of], gradient, name, calls=self.calls, values=self.values)

    def narrowed(self, parameter: str, gradient: str) -> str:
        """A gradient in the dtype in which it is sent."""
        dtype = self.processes.reduce_dtype
        if dtype is None or dtype == dtype_of_value(self.values[gradient]):
            return gradient
        name = f"{parameter}:sent"
        return add_cast(gradient, name, dtype, calls=self.calls, values=self.values)

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
        return self.changed()

    def outputs(self) -> Graph:
        own = _depend_on_samples(self.graph)
        sums = self.summed({name: name for name in self.graph.outputs if name in own})
        return self.changed(outputs=tuple(sums.get(name, name) for name in self.graph.outputs))

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
        return self.changed()


def _depend_on_samples(graph: Graph) -> set[str]:
    """The values that depend on the inputs or targets, and so differ from process to process."""
    found = {*graph.inputs, *graph.targets, RANK}
    for call in graph.order():
        whole = isinstance(call.layer, Exchange) and call.method == "forward"
        if not found.isdisjoint(call.reads()) and not whole:
            found.update(call.makes())
    return found
