"""Processes: the rules of a step that several processes compute together.

A step returns and updates values that are equal in all processes; or each process updates its own shard. Each
process computes its share of the loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphnet.graph import Call, Kind
from graphnet.plan.verify.spreads import rule_of
from graphnet.plan.verify.step import Step
from graphnet.sdk import (
    Accumulate,
    AddTo,
    AssignGathered,
    Clear,
    LossWeight,
    Times,
    Wait,
    Weighted,
    WeightedSum,
)


def exchanges(step: Step) -> Iterator[str]:
    """Yield the faults of the exchanges between processes."""
    calls = [call for call in step.graph.calls.values() if call.kind is Kind.COLLECTIVE]
    if not calls:
        return
    yield from step.spreads.faults
    for call in calls:
        for name in call.makes():
            readers = [step.graph.calls[one] for one in step.graph.readers.get(name, ())]
            if [type(one.layer) for one in readers] != [Wait]:
                yield f"{name!r} is read before it is waited for, or never"


def same_everywhere(step: Step) -> Iterator[str]:
    """What differs from process to process after the step, and should not."""
    if step.processes.count == 1:
        return
    found = step.spreads
    for name in step.graph.outputs:
        if name in found.of:
            yield f"the output {name!r} differs from process to process"
    for call in step.graph.calls.values():
        if call.kind is not Kind.UPDATE or isinstance(rule_of(call.layer), Clear | AddTo):
            continue
        differing = [name for name in call.reads() if name in found.of]
        expected = found.shard if differing else None
        for new, target in call.writes.items():
            if {found.of.get(new), found.of.get(target)} != {expected}:
                name = next(iter(differing), target)
                yield f"{call.name!r} reads {name!r}, which differs from process to process"
    for _, parameter, gradient in step.optimizer_updates():
        for factor in {one for factors in step.carried(gradient).factors for one in factors}:
            if factor in found.of:
                yield f"the gradient of {parameter!r} is multiplied by {factor!r}, which differs"


def divided(step: Step) -> Iterator[str]:
    """Faults of shards: cut in different ways, or not written into the parameter of all processes."""
    taken = {
        call.name: (str(call.args[0]), call.layer, step.buckets.sent(call))
        for call in step.graph.calls.values()
        if isinstance(call.layer, AssignGathered)
    }
    for call, target, gradient in step.optimizer_updates():
        parameter = step.buckets.cut_from(target)
        if parameter is None:
            continue
        sharding, spec = step.buckets.sharding(target), step.graph.values[parameter].spec
        assert sharding is not None
        if sharding.sizes != step.processes.sizes or sharding.shape != spec.shape:
            yield f"{target!r} is cut for another tensor or other processes than {parameter!r} has"
        if step.buckets.sharding(gradient) != sharding:
            yield f"{target!r} is updated by {gradient!r}, which is cut in another way"
        new = next((one for one, old in call.writes.items() if old == target), None)
        writers = [name for name, (_, _, sent) in taken.items() if sent is not None and sent == new]
        if len(writers) != 1:
            yield f"the shard {target!r} is written {len(writers)} times into its parameter"
            continue
        written, layer, _ = taken.pop(writers[0])
        if written != parameter or layer.sharding != sharding:
            yield f"{writers[0]!r} writes the shards of {parameter!r} into another place"
    for name in taken:
        yield f"{name!r} writes something else than the updated shards of a parameter"


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
    differ = step.spreads.of if step.processes.count > 1 else {}
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
