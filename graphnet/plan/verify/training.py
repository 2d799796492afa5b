"""Training: the rules that the graph of a training step keeps, whatever passes have made it.

RULES is the table. A rule reads the graph alone: the calls, what they read and make, and what their layers
declare. It shares no code with the passes that add the reverse pass and the updates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import networkx as nx

from graphnet.errors import PlanError
from graphnet.graph import SLOTS, Call, Const, Graph, Kind, flat, flatten, run_on_meta
from graphnet.plan.verify.processes import divided, exchanges, same_everywhere, shares
from graphnet.plan.verify.step import Step
from graphnet.sdk import (
    ALONE,
    Assign,
    Layer,
    MicroBatch,
    MultiTensorKernel,
    Processes,
    arguments_of_run,
)


def verify_training(graph: Graph, *, updates: bool, processes: Processes = ALONE) -> None:
    """Check the rules on the graph of a training step.

    Args:
        graph: a graph with a reverse pass.
        updates: whether an optimizer updates the parameters in this graph.
        processes: those that compute the step together.

    Raises:
        PlanError: a rule is broken; the message names the rule, and the call or value.
    """
    step = Step(graph, processes)
    for rule in RULES:
        if rule.of_updates and not updates:
            continue
        if problem := next(rule.faults(step), ""):
            raise PlanError(f"plan rejected: {problem}. Rule: {rule.sentence}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold: a sentence, and a function that yields each fault as text.

    `of_updates` rules hold only where an optimizer updates the parameters.
    """

    sentence: str
    faults: Callable[[Step], Iterator[str]]
    of_updates: bool = False


def _without_cycles(step: Step) -> Iterator[str]:
    if not nx.is_directed_acyclic_graph(step.graph.network):
        (first, *_), *_ = nx.find_cycle(step.graph.network)
        yield f"the graph has a cycle through {first!r}"


def _reversed_once(step: Step) -> Iterator[str]:
    counts = Counter(
        call.backward_of for call in step.graph.calls.values() if call.kind is Kind.BACKWARD
    )
    known = {call.name: call for call in step.forward}
    for name, count in counts.items():
        if name not in known:
            yield f"a backward call belongs to {name!r}, which is no call of the forward pass"
        elif count > 1:
            yield f"{name!r} has {count} backward calls"
        elif step.backward[name].layer != known[name].layer:
            yield f"the backward call of {name!r} has another layer"


def _every_use(step: Step) -> Iterator[str]:
    for call in step.forward:
        layer = call.layer
        assert isinstance(layer, Layer)
        outputs = [name for name in call.results[: len(layer.outputs)] if isinstance(name, str)]
        if not any(_has_gradient(step, name) for name in outputs) or not step.wanted(call):
            continue
        back = step.backward.get(call.name)
        if back is None:
            yield f"{call.name!r} has no backward call, but its output has a gradient"
            continue
        returned: list[bool] | None = None
        for port, value, name in step.gradients(call):
            if name is not None:
                continue
            if returned is None:
                returned = [one.spec is not None for one in run_on_meta(back, step.graph.values)]
            dropped = zip(flat(back.results), returned, strict=False)
            if any(slot is None and there for slot, there in dropped):
                yield f"the gradient of {value!r} at {port!r} of {call.name!r} is not collected"


def _has_gradient(step: Step, name: str) -> bool:
    return name in step.contributions or name in _losses(step)


def _losses(step: Step) -> frozenset[str]:
    """The value from which the reverse pass starts: the first output, before sums over processes."""
    return frozenset(map(step.before_sums, step.graph.outputs[:1]))


def _reads_gradients(step: Step) -> Iterator[str]:
    for call in step.forward:
        back, layer = step.backward.get(call.name), call.layer
        if back is None:
            continue
        assert isinstance(layer, Layer)
        named = dict(zip(layer.signature.of("backward"), back.args, strict=True))
        for output, made in zip(layer.outputs, call.results, strict=False):
            arg = named.get(f"grad_{output}")
            if arg is None or not isinstance(made, str):
                continue
            if made in _losses(step) and made not in step.contributions:
                if arg != Const(1.0) and (
                    not isinstance(arg, str) or step.graph.values[arg].spec.shape != ()
                ):
                    yield f"the backward call of the loss {call.name!r} starts from no number"
            elif (total := step.total(made)) is not None:
                if arg != total:
                    yield f"the backward call of {call.name!r} reads another gradient of {made!r}"
            elif made in step.contributions:
                yield f"the contributions to the gradient of {made!r} are not added up"
            elif isinstance(arg, str) and step.graph.values[arg].kind is not Kind.CONSTANT:
                yield f"the backward call of {call.name!r} reads {arg!r}, but {made!r} has no gradient"


def _reads_forward(step: Step) -> Iterator[str]:
    for call in step.forward:
        back, layer = step.backward.get(call.name), call.layer
        if back is None:
            continue
        assert isinstance(layer, Layer)
        ports = call.ports()
        for name, arg in zip(layer.signature.of("backward"), back.args, strict=True):
            if name == "wanted" and isinstance(arg, Const) and arg.value != step.wanted(call):
                yield f"the backward call of {call.name!r} is asked for other gradients than needed"
            if name in ports and step.original(arg) != step.original(ports[name]):
                yield f"the backward call of {call.name!r} reads another {name!r} than the forward call"


def _parameter_gradients(step: Step) -> Iterator[str]:
    reached = {name for name in step.graph.parameters if step.contributions.get(name)}
    whole = {parameter: (name,) for parameter, name in step.graph.gradients.items()}
    stated = {**whole, **step.graph.partial_gradients}
    for name in sorted(reached ^ stated.keys()):
        yield f"{name!r} {'has no' if name in reached else 'needs no'} gradient"
    for parameter, gradients in stated.items():
        if not step.are_gradients(gradients, parameter):
            what = " and ".join(map(repr, gradients))
            yield f"{what} is not the gradient of {parameter!r}"


def _micro_batches(step: Step) -> Iterator[str]:
    calls = step.graph.calls.values()
    parts = {call.part for call in calls if call.part is not None}
    taken: dict[str, Counter[int]] = {}  # input -> the parts of it that are read
    for call in calls:
        if isinstance(call.layer, MicroBatch):
            (source,) = call.reads()
            taken.setdefault(source, Counter())[call.layer.index] += 1
            if call.layer.index != call.part or call.layer.count != len(parts):
                yield f"{call.name!r} takes another part of {source!r} than its own"
        elif call.part is not None:
            for name in call.reads():
                maker = step.graph.producers.get(name)
                if maker is not None and maker.part not in (None, call.part):
                    yield f"{call.name!r} reads {name!r}, which belongs to another part of the batch"
                if len(parts) > 1 and step.graph.values[name].kind is Kind.INPUT:
                    yield f"{call.name!r} reads all of {name!r}"
    for source, counts in taken.items():
        if counts != Counter(range(len(parts))):
            yield f"not every part of {source!r} is read once"


def _updated_once(step: Step) -> Iterator[str]:
    found: Counter[str] = Counter()
    for call, target, gradient in step.optimizer_updates():
        parameter = step.buckets.cut_from(target) or target
        found[parameter] += 1
        if target not in call.writes.values():
            yield f"{call.name!r} does not write {target!r}"
        if not step.are_gradients((gradient,), parameter):
            yield f"{parameter!r} is updated by {gradient!r}, which is not its gradient"
        earlier = step.cleared.get(parameter, frozenset())
        if step.carried(gradient).slots != Counter(earlier):
            yield f"{parameter!r} is updated without the gradients of earlier steps"
    for parameter in step.graph.gradients:
        if found[parameter] != 1:
            yield f"{parameter!r} has a gradient, and {found[parameter]} updates"
    for parameter in found.keys() - step.graph.gradients.keys():
        yield f"{parameter!r} is updated, and has no gradient"


def _written_once(step: Step) -> Iterator[str]:
    written: Counter[str] = Counter()
    for call in step.graph.calls.values():
        for slot in call.writes.values():
            if step.graph.values[slot].kind in SLOTS:
                written[slot] += 1
                if step.graph.values[slot].kind is Kind.FROZEN:
                    yield f"{call.name!r} writes {slot!r}, which is frozen"
    for slot, count in written.items():
        if count > 1:
            yield f"{slot!r} is written {count} times"


def _new_states(step: Step) -> Iterator[str]:
    written = {slot for call in step.graph.calls.values() for slot in call.writes.values()}
    origin: dict[str, str] = {}  # a new state -> the slot
    for call in step.forward:
        for state, new in call.new_states().items():
            old = str(call.ports()[state])
            slot = origin.get(old, old)
            origin[new] = slot
            if slot not in written and step.graph.values[slot].kind is Kind.STATE:
                yield f"{call.name!r} makes a new state of {slot!r}, which nothing writes"
    for call in step.graph.calls.values():
        if isinstance(call.layer, Assign):
            slot, written_value = map(str, call.args)
            if origin.get(step.averaged(written_value)) != slot:
                yield f"{call.name!r} writes {written_value!r}, which is no new state of {slot!r}"


def _kept_casts(step: Step) -> Iterator[str]:
    writers: dict[str, list[Call]] = {}
    for call in step.graph.calls.values():
        for slot in call.writes.values():
            writers.setdefault(slot, []).append(call)
    for slot, parameter in step.kept_casts.items():
        mine, theirs = writers.get(slot, []), writers.get(parameter, [])
        if mine != theirs:
            yield f"{slot!r} and {parameter!r} are not written by the same call"
        for call in mine:
            kernel = call.layer
            if not isinstance(kernel, MultiTensorKernel) or not kernel.copies:
                yield f"{call.name!r} cannot write {slot!r}, the cast of {parameter!r}"
                continue
            last_argument = len(arguments_of_run(type(kernel))) - 1  # the copies
            first, last = (tuple(flatten((call.args[i],))) for i in (0, last_argument))
            if len(first) != len(last) or (parameter, slot) not in zip(first, last, strict=False):
                yield f"{call.name!r} writes another parameter than {parameter!r} into {slot!r}"


RULES = (
    Rule("No call waits for its own results", _without_cycles),
    Rule(
        "A call of the forward pass has at most one backward call, of the same layer",
        _reversed_once,
    ),
    Rule("Each use of a value that depends on a parameter contributes to its gradient", _every_use),
    Rule("A backward call reads the whole gradients of the outputs of its call", _reads_gradients),
    Rule("A backward call reads what its call has read and made", _reads_forward),
    Rule("Each parameter that the loss depends on has its own gradient", _parameter_gradients),
    Rule("Each part of a batch is computed once, and from no other part", _micro_batches),
    Rule("A process computes its share of the loss", shares),
    Rule("Processes add up what differs between them, once, and wait for it", exchanges),
    Rule("What processes return and update is the same in all of them", same_everywhere, True),
    Rule(
        "A shard is updated by the same shard of its gradient, and written into the parameter everywhere",
        divided,
        True,
    ),
    Rule(
        "Each parameter with a gradient is updated once, by this gradient and those that were added up",
        _updated_once,
        True,
    ),
    Rule("A slot is written at most once, and a frozen parameter never", _written_once),
    Rule("Each new state of a layer is written into its slot", _new_states, True),
    Rule(
        "A slot that holds the cast of a parameter is written by the update of this parameter",
        _kept_casts,
    ),
)
"""What must hold for the graph of a training step."""
