"""Micro-batches: a step computes its batch in equal parts, and adds up their gradients in a fixed order.

`split` repeats the forward pass for each part of the inputs. Each process computes `count` of the `total`
micro-batches of a step, so the loss of a process is its share of the loss of the step:
    share = sum over its micro-batches of loss_i / total,
and the shares of all processes add up to the mean of all losses. `add_parts` adds up the gradients by pairs:
(g0 + g1) + (g2 + g3). A sum of two has the same bits in either order, so 4 processes that exchange by pairs
get the bits of one process with 4 micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from graphnet.errors import GraphError
from graphnet.graph import RANK, STEP, Call, Graph, Kind, Value, renamed
from graphnet.passes.rewrite import at, scalar
from graphnet.sdk import Accumulate, Layer, MicroBatch, MicroStep, Spec, Times, WeightedSum


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
        gradients[parameter] = _by_pairs(
            parts, of, ":sum", Kind.ACCUMULATE, calls=calls, values=values
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
        for call in losses:
            self.share(call)
        self.calls.update((call.name, call) for call in whole)
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
            name = f"{call.name}@{part}"
            self.calls[name] = replace(
                call,
                name=name,
                args=tuple(renamed(arg, names) for arg in call.args),
                results=tuple(
                    names[slot] if isinstance(slot, str) else slot for slot in call.results
                ),
                part=part,
            )

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

    def share(self, call: Call) -> None:
        """Add up the losses of the micro-batches, and take their part of the mean over all micro-batches."""
        (loss,) = call.results[: len(call.layer.outputs)]  # type: ignore[attr-defined]
        of = self.values[str(loss)]
        parts = [f"{loss}@{part}" for part in range(self.count)]
        whole = _by_pairs(parts, of, ":sum", Kind.LOSS, calls=self.calls, values=self.values)
        layer = Times(factor=1.0 / self.total)
        self.calls[call.name] = Call(
            call.name, Kind.LOSS, layer, "forward", (whole,), (of.name,), "share", call.node
        )


def _by_pairs(
    names: Sequence[str],
    of: Value,
    suffix: str,
    kind: Kind,
    *,
    calls: dict[str, Call],
    values: dict[str, Value],
) -> str:
    """Add up values by pairs, then the sums by pairs, and so on; returns the name of the whole sum."""
    level, left = 0, list(names)
    while len(left) > 1:
        pairs = [left[i : i + 2] for i in range(0, len(left), 2)]
        left = []
        for number, pair in enumerate(pairs):
            if len(pair) == 1:
                left += pair
                continue
            spec: Spec = values[pair[0]].spec
            dtype = torch.promote_types(spec.dtype, values[pair[1]].spec.dtype)
            made = of.sibling(f"{suffix}{level}.{number}", kind, replace(spec, dtype=dtype))
            values[made.name] = replace(made, layout=of.layout)
            calls[made.name] = Call(
                name=made.name,
                kind=kind,
                layer=Accumulate(),
                method="forward",
                args=(tuple(pair),),
                results=(made.name,),
                title="accumulate",
                node=of.node,
            )
            left.append(made.name)
        level += 1
    return left[0]
