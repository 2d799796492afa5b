"""Processes: the rules of a step that several processes compute together.

A value is equal in all processes unless it depends on their samples. All-reduces add up values that differ:
after the sums over all groups, the result is equal in all processes. Each process computes its share of the
loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from graphnet.graph import RANK, SLOTS, Call, Graph, Kind
from graphnet.plan.verify.step import Step
from graphnet.sdk import (
    Accumulate,
    AddTo,
    AllReduce,
    Clear,
    FromBucket,
    LossWeight,
    Processes,
    Times,
    Wait,
    Weighted,
    WeightedSum,
)

Sums = Mapping[str, int]
"""Value that differs from process to process -> the number of groups over which it was added up."""


def differing(graph: Graph, processes: Processes) -> tuple[dict[str, int], list[str]]:
    """Find the values that differ between processes, and the faults of the all-reduces."""
    found: dict[str, int] = dict.fromkeys((*graph.inputs, *graph.targets, RANK), 0)
    faults: list[str] = []
    for call in graph.calls.values():
        if isinstance(call.layer, AddTo | Clear):
            found.update(dict.fromkeys(call.writes.values(), 0))
    for call in graph.order():
        mine = {name: found[name] for name in call.reads() if name in found}
        if isinstance(call.layer, AllReduce):
            faults += _wrong(call, mine, processes)
            done = max(mine.values(), default=0) + 1
            if done < len(processes.groups):
                found.update(dict.fromkeys(call.makes(), done))
        elif mine:
            sent = isinstance(call.layer, Wait | FromBucket)
            found.update(dict.fromkeys(call.makes(), max(mine.values()) if sent else 0))
    return found, faults


def _wrong(call: Call, mine: Sums, processes: Processes) -> Iterator[str]:
    same = [name for name in call.reads() if name not in mine]
    if same:
        yield f"{call.name!r} adds up {same[0]!r}, which is the same on all processes"
    if len({*mine.values()}) > 1:
        yield f"{call.name!r} adds up values that were added up over different groups"
    done = max(mine.values(), default=0)
    layer = call.layer
    assert isinstance(layer, AllReduce)
    if done >= len(processes.groups) or layer.group != processes.groups[done]:
        yield f"{call.name!r} adds up over the group {layer.group!r}, which is not the next one"


def all_reduces(step: Step) -> Iterator[str]:
    """Yield the faults of the exchanges between processes."""
    if not any(isinstance(call.layer, AllReduce) for call in step.graph.calls.values()):
        return
    _, faults = differing(step.graph, step.processes)
    yield from faults
    for call in step.graph.calls.values():
        if isinstance(call.layer, AllReduce):
            for name in call.makes():
                readers = [step.graph.calls[one] for one in step.graph.readers.get(name, ())]
                if [type(one.layer) for one in readers] != [Wait]:
                    yield f"{name!r} is read before it is waited for, or never"


def same_everywhere(step: Step) -> Iterator[str]:
    """What differs from process to process after the step, and should not."""
    if step.processes.count == 1:
        return
    found, _ = differing(step.graph, step.processes)
    for name in step.graph.outputs:
        if name in found:
            yield f"the output {name!r} differs from process to process"
    for call in step.graph.calls.values():
        if call.kind is not Kind.UPDATE or isinstance(call.layer, Clear | AddTo):
            continue
        for name in call.reads():
            if name in found and step.graph.values[name].kind not in SLOTS:
                yield f"{call.name!r} reads {name!r}, which differs from process to process"
    for _, parameter, gradient in step.optimizer_updates():
        for factor in {one for factors in step.carried(gradient).factors for one in factors}:
            if factor in found:
                yield f"the gradient of {parameter!r} is multiplied by {factor!r}, which differs"


def shares(step: Step) -> Iterator[str]:
    """Losses of micro-batches that are not counted by their share of the loss of all."""
    parts = {call.part for call in step.graph.calls.values() if call.part is not None}
    if step.processes.count > 1 and not parts:
        yield "no loss is counted by its share"
    if not parts:
        return
    factor = 1.0 / (len(parts) * step.processes.count)
    expected: Counter[str] = Counter()  # the shares of the losses
    weights: dict[str, Counter[str]] = {}  # the sum of all weights -> those of the losses
    for call in step.forward:
        if call.kind is not Kind.LOSS or call.part is None or isinstance(call.layer, _COUNTING):
            continue
        readers = [
            step.graph.calls[one] for one in step.graph.readers.get(str(call.results[0]), ())
        ]
        found = [
            one
            for one in readers
            if isinstance(one.layer, Weighted | Times)
            and (one.kind, one.part) == (Kind.LOSS, call.part)
        ]
        if len(found) != 1:
            yield f"the loss {call.name!r} is counted {len(found)} times by its share"
            continue
        (share,) = found
        expected.update(share.makes())
        if isinstance(share.layer, Weighted):
            _, weight, total = map(str, share.args)
            yield from _other_weight(step, call, weight)
            weights.setdefault(total, Counter())[weight] += 1
        elif isinstance(share.layer, Times) and share.layer.factor != factor:
            yield f"the loss {call.name!r} is multiplied by {share.layer.factor}, expected {factor}"
    output = step.graph.outputs[0]
    if step.summands(output) != expected:
        yield f"the output {output!r} is not the sum of the shares of all losses"
    differ = differing(step.graph, step.processes)[0] if step.processes.count > 1 else {}
    for total, summands in weights.items():
        if step.summands(total) != summands or total in differ:
            yield f"losses are divided by {total!r}, which is not the sum of all their weights"


_COUNTING = (Accumulate, Times, Weighted, WeightedSum)
"""What makes the loss of a step from the losses of micro-batches."""


def _other_weight(step: Step, loss: Call, name: str) -> Iterator[str]:
    """The fault of a loss that is not weighted by the weight of its own micro-batch."""
    maker = step.graph.producers.get(name)
    if maker is None or not isinstance(maker.layer, LossWeight):
        yield f"the loss {loss.name!r} is multiplied by {name!r}, which is no weight of a loss"
    elif (maker.part, maker.node) != (loss.part, loss.node):
        yield f"the loss {loss.name!r} has the weight of another"
