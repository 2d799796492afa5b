"""Micro-batches: a step computes its batch in equal parts, and adds up their gradients in a fixed order.

`split` repeats the forward pass for each part of the inputs. Each process computes `count` of the `total`
micro-batches of a step, so the loss of a process is its share of the loss of the step:
    share = sum over its micro-batches of loss_i / total,
and the shares of all processes add up to the mean of all losses. A loss that defines `weight`, such as one
with a mask, has the share
    share = sum over its micro-batches of loss_i weight_i / (sum of the weights of all micro-batches);
`sum_weights` in passes/data_parallel.py adds up the divisor over the processes.

`add_parts` adds up the gradients by pairs: (g0 + g1) + (g2 + g3). A sum of two has the same bits in either
order, so 4 processes that exchange by pairs get the bits of one process with 4 micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from graphnet.errors import GraphError
from graphnet.graph import RANK, STEP, Call, Graph, Kind, Value, renamed
from graphnet.passes.loss import weight_of
from graphnet.passes.rewrite import at, scalar
from graphnet.sdk import (
    Accumulate,
    Layer,
    LossWeight,
    MicroBatch,
    MicroStep,
    Times,
    Weighted,
    WeightedSum,
)


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """The equal parts of a batch: how many this process computes, and how many there are in all processes.

    With `deterministic`, any number of processes must give the same bits.
    """

    count: int = 1
    total: int = 1
    deterministic: bool = False


def split(graph: Graph, *, parts: MicroBatches) -> Graph:
    """Repeat the forward pass of one micro-batch for all those of this process.

    The inputs and targets then have `parts.count` times as many samples.

    Raises:
        GraphError: a layer changes its states in a step, which micro-batches would do one after the other.
    """
    return graph if parts.total == 1 else _Split(graph, parts).run()


def add_parts(graph: Graph) -> Graph:
    """Add up the gradients of the micro-batches of each parameter; sets `gradients`."""
    if not graph.partial_gradients:
        return graph
    calls, values, gradients = dict(graph.calls), dict(graph.values), dict(graph.gradients)
    for parameter, parts in graph.partial_gradients.items():
        of = values[parameter]
        name = of.sibling(":sum", Kind.ACCUMULATE, of.spec).name
        gradients[parameter] = _by_pairs(
            parts, of, name, Kind.ACCUMULATE, calls=calls, values=values
        )
    ordered = {name: gradients[name] for name in graph.parameters if name in gradients}
    return replace(graph, calls=calls, values=values, gradients=ordered, partial_gradients={})


class _Split:
    def __init__(self, graph: Graph, parts: MicroBatches) -> None:
        self.graph = graph
        self.count, self.total = parts.count, parts.total
        self.together = parts.deterministic or parts.count > 1
        self.calls: dict[str, Call] = {}
        self.values = dict(graph.values)

    def run(self) -> Graph:
        graph = self.graph
        losses: list[Call] = []
        whole: list[Call] = []
        for call in graph.calls.values():
            if isinstance(call.layer, Layer) and call.layer.updates and self.together:
                raise GraphError(
                    f"{at(call)}deterministic: true computes a batch in {self.total} parts, but this layer "
                    f"computes statistics of the whole batch. Use a layer that treats each sample alone, "
                    f"such as group_norm, or leave deterministic out."
                )
            if call.kind is Kind.LOSS:
                is_sum = isinstance(call.layer, (Accumulate, WeightedSum))
                (whole if is_sum else losses).append(call)
        for part in range(self.count):
            self.repeat(part, without=whole)
        weights = {c.name: c for c in graph.calls.values() if isinstance(c.layer, LossWeight)}
        for call in losses:
            self.shares(call, weights.get(weight_of(call.node)))
        for call in whole:
            for part in range(self.count):
                self.sum_of_shares(call, part)
        for call in (*losses, *whole) if self.count > 1 else ():
            loss, *_ = call.makes()
            shares = [self.share_of(loss, part) for part in range(self.count)]
            self.by_pairs(shares, loss, Kind.LOSS)
        return replace(graph, calls=self.calls, values=self.values)

    def repeat(self, part: int, *, without: Sequence[Call]) -> None:
        """Add the calls of a micro-batch."""
        graph, left_out = self.graph, {call.name for call in without}
        names = {name: self.part_of(name, part) for name in (*graph.inputs, *graph.targets)}
        if STEP in graph.values:
            names[STEP] = self.step(part)
        for call in graph.calls.values():
            if call.name not in left_out:
                names |= {name: f"{name}@{part}" for name in call.makes()}
        for call in graph.calls.values():
            if call.name in left_out:
                continue
            for name in call.makes():
                value = graph.values[name]
                base = None if value.view_of is None else names.get(value.view_of, value.view_of)
                self.values[names[name]] = replace(value, name=names[name], view_of=base)
            self.add(call, f"{call.name}@{part}", names, part)

    def add(self, call: Call, name: str, names: Mapping[str, str], part: int) -> None:
        """Add a call for a micro-batch, under another name, with other values."""
        results = tuple(names[slot] if isinstance(slot, str) else slot for slot in call.results)
        args = tuple(renamed(arg, names) for arg in call.args)
        self.calls[name] = replace(call, name=name, args=args, results=results, part=part)

    def part_of(self, name: str, part: int) -> str:
        """Add the call that takes a micro-batch from an input; returns the name of its result."""
        if self.count == 1:
            return name
        value, result = self.graph.values[name], f"{name}@{part}"
        whole = replace(value.spec, shape=(self.count * value.spec.shape[0], *value.spec.shape[1:]))
        self.values[name] = replace(value, spec=whole)
        self.values[result] = replace(value, name=result, kind=Kind.LAYER, view_of=name, node=name)
        self.calls[result] = Call(
            name=result,
            kind=Kind.LAYER,
            layer=MicroBatch(index=part, count=self.count),
            method="forward",
            args=(name,),
            results=(result,),
            title="micro_batch",
            node=name,
            part=part,
        )
        return result

    def step(self, part: int) -> str:
        """Add the step count of a micro-batch's random keys; returns its name."""
        name = f"{STEP}@{part}"
        like = self.graph.values[STEP].spec
        scalar(self.values, RANK, like)
        self.values[name] = Value(name, like, Kind.KEY, port="step")
        layer = MicroStep(index=part, count=self.count, total=self.total)
        args = (STEP, RANK)
        self.calls[name] = Call(
            name, Kind.KEY, layer, "forward", args, (name,), "step", STEP, part=part
        )
        return name

    def shares(self, call: Call, weight: Call | None) -> None:
        """Add the shares of the micro-batches' losses in the loss of all micro-batches."""
        loss, *_ = call.makes()
        total, by = "", ""
        if weight is not None:
            (by,) = weight.makes()
            parts = [f"{by}@{part}" for part in range(self.count)]
            total = self.by_pairs(parts, by, Kind.LAYER)
        for part in range(self.count):
            made = self.share_of(loss, part)
            self.values[made] = replace(self.values[loss], name=made)
            of, layer = f"{loss}@{part}", Times(factor=1.0 / self.total)
            args: tuple[str, ...] = (of,) if weight is None else (of, f"{by}@{part}", total)
            self.calls[made] = Call(
                name=made,
                kind=Kind.LOSS,
                layer=layer if weight is None else Weighted(),
                method="forward",
                args=args,
                results=(made,),
                title="share",
                node=call.node,
                part=part,
            )

    def sum_of_shares(self, call: Call, part: int) -> None:
        """Add the sum of the shares of several losses."""
        (made,) = call.makes()
        names = {name: self.share_of(name, part) for name in (*call.reads(), made)}
        self.values[names[made]] = replace(self.values[made], name=names[made])
        self.add(call, names[made], names, part)

    def share_of(self, loss: str, part: int) -> str:
        """The name of a micro-batch's share in a loss: a single one is the loss of this process."""
        return loss if self.count == 1 else f"{loss}@{part}:share"

    def by_pairs(self, names: Sequence[str], of: str, kind: Kind) -> str:
        """Add up the values of all micro-batches by pairs; returns the name of the sum."""
        return _by_pairs(names, self.values[of], of, kind, calls=self.calls, values=self.values)


def _by_pairs(
    names: Sequence[str],
    of: Value,
    result: str,
    kind: Kind,
    *,
    calls: dict[str, Call],
    values: dict[str, Value],
) -> str:
    """Add up values by pairs, then the sums by pairs, and so on; returns the name of the whole sum.

    That is `result`, or the only one of `names`.
    """
    level, left = 0, list(names)
    while len(left) > 1:
        pairs = [left[i : i + 2] for i in range(0, len(left), 2)]
        left = []
        for number, pair in enumerate(pairs):
            if len(pair) == 1:
                left += pair
                continue
            name = result if len(pairs) == 1 else f"{result}:{level}.{number}"
            dtype = torch.promote_types(*(values[one].spec.dtype for one in pair))
            spec = replace(values[pair[0]].spec, dtype=dtype)
            made = of if kind is Kind.LOSS else of.sibling("", kind, spec)
            values[name] = replace(made, name=name, spec=spec, layout=of.layout)
            calls[name] = Call(
                name=name,
                kind=kind,
                layer=Accumulate(),
                method="forward",
                args=(tuple(pair),),
                results=(name,),
                title="accumulate",
                node=of.node,
            )
            left.append(name)
        level += 1
    return left[0]
