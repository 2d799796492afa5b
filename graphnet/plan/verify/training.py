"""Training: the rules that the graph of a training step keeps, whatever passes have made it.

RULES is the table. A rule reads the graph alone: the calls, what they read and make, and what their layers
declare. It shares no code with the passes that add the reverse pass and the updates.

The gradient of a value is the sum of its contributions: one result of a backward call for each use of the
value in the forward pass. A value in the graph carries a gradient if it is that gradient, cast, scaled, or
added to the gradients of earlier steps.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from graphnet.errors import PlanError
from graphnet.graph import (
    SLOTS,
    Arg,
    Call,
    Const,
    Graph,
    Kind,
    flat,
    flatten,
    gradient_names,
    gradients_are_bare,
    run_on_meta,
)
from graphnet.sdk import (
    Accumulate,
    Cast,
    Clear,
    IfFinite,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Scaled,
    arguments_of,
)

_FORWARD = frozenset({Kind.LAYER, Kind.LOSS})


def verify_training(graph: Graph, *, updates: bool) -> None:
    """Check the rules on the graph of a training step.

    Args:
        graph: a graph with a reverse pass.
        updates: whether an optimizer updates the parameters in this graph.

    Raises:
        PlanError: a rule is broken; the message names the rule, and the call or value.
    """
    step = Step(graph)
    for rule in RULES:
        if rule.of_updates and not updates:
            continue
        if problem := next(rule.faults(step), ""):
            raise PlanError(f"plan rejected: {problem}. Rule: {rule.sentence}")


class Step:
    """A graph with a reverse pass, and what the rules ask of it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.forward = [
            one
            for call in graph.calls.values()
            if call.kind in _FORWARD and not call.repeats
            for one in self._single(call)
        ]
        self.backward: dict[str, Call] = {}  # name of a forward call -> its backward call
        for call in graph.calls.values():
            if call.kind is Kind.BACKWARD and not call.repeats:
                self.backward.setdefault(call.backward_of, call)

    def _single(self, call: Call) -> Iterator[Call]:
        """The calls of one layer that a call stands for: itself, or those that a multi-tensor kernel does."""
        layer = call.layer
        if isinstance(layer, MultiTensorKernel) and isinstance(layer.rule, Cast):
            pairs = zip(flatten((call.args[0],)), call.makes(), strict=True)
            for source, made in pairs:
                name = self.graph.values[made].node
                yield replace(
                    call,
                    name=name,
                    layer=layer.rule,
                    method="forward",
                    args=(source,),
                    results=(made,),
                )
        elif isinstance(layer, Layer) and call.method == "forward":
            yield call

    @functools.cached_property
    def live(self) -> frozenset[str]:
        """The values that depend on a parameter by calls that can be differentiated."""
        found = set(self.graph.parameters)
        readers: dict[str, list[Call]] = {}
        for call in self.forward:
            for name in set(call.reads()):
                readers.setdefault(name, []).append(call)
        left = list(found)
        while left:
            for call in readers.get(left.pop(), ()):
                made = [n for n in call.results[: len(call.layer.outputs)] if isinstance(n, str)]  # type: ignore[attr-defined]
                left += [name for name in made if name not in found]
                found.update(made)
        return frozenset(found)

    def ports(self, call: Call) -> dict[str, Arg]:
        """Argument of a forward call that can have a gradient -> the value there."""
        layer, named = call.layer, call.ports()
        assert isinstance(layer, Layer)
        specs = {name: self.graph.spec_of(named[name]) for name in layer.signature.tensors}
        return {name: named[name] for name in gradient_names(layer, specs)}

    def wanted(self, call: Call) -> frozenset[str]:
        """The arguments of a forward call whose gradient is needed."""
        layer = call.layer
        assert isinstance(layer, Layer)
        return frozenset(
            name
            for name, arg in self.ports(call).items()
            if name not in layer.nondifferentiable and not self.live.isdisjoint(flatten((arg,)))
        )

    def gradients(self, call: Call) -> Iterator[tuple[str, str, str | None]]:
        """Yield each use of a live value in a wanted argument: argument, value, and its contribution."""
        back = self.backward.get(call.name)
        results = self._results(call, back) if back is not None else {}
        for port in sorted(self.wanted(call)):
            values = tuple(flatten((self.ports(call)[port],)))
            made = results.get(port, (None,) * len(values))
            if len(made) != len(values):
                made = (None,) * len(values)
            for value, name in zip(values, made, strict=True):
                if value in self.live:
                    yield port, value, name

    def _results(self, call: Call, back: Call) -> dict[str, tuple[str | None, ...]]:
        """Argument of a forward call -> the results of its backward call for it."""
        layer = call.layer
        assert isinstance(layer, Layer)
        named = call.ports()
        specs = {name: self.graph.spec_of(named[name]) for name in layer.signature.tensors}
        names = gradient_names(layer, specs)
        if gradients_are_bare(layer, specs):
            return {names[0]: tuple(flat(back.results))}
        slots = dict(zip(names, back.results, strict=False))
        return {n: one if isinstance(one, tuple) else (one,) for n, one in slots.items()}

    @functools.cached_property
    def contributions(self) -> Mapping[str, tuple[str, ...]]:
        """Value -> the results of backward calls that are its gradient, one for each use."""
        found: dict[str, list[str]] = {}
        for call in self.forward:
            for _, value, name in self.gradients(call):
                if name is not None:
                    found.setdefault(value, []).append(name)
        return {value: tuple(names) for value, names in found.items()}

    @functools.cached_property
    def _sums(self) -> Mapping[tuple[str, ...], str]:
        """The sorted arguments of each sum -> its result."""
        return {
            tuple(sorted(flatten(call.args))): next(call.makes())
            for call in self.graph.calls.values()
            if call.kind is Kind.ACCUMULATE and isinstance(call.layer, Accumulate)
        }

    def total(self, value: str) -> str | None:
        """The value in the graph that is the whole gradient of a value; None if there is none."""
        parts = self.contributions.get(value, ())
        return parts[0] if len(parts) == 1 else self._sums.get(tuple(sorted(parts)))

    def path(self, name: str) -> tuple[str, frozenset[str]]:
        """The gradient that a value carries, and the slots that are added to it on the way."""
        added: set[str] = set()
        while (call := self.graph.producers.get(name)) is not None:
            source = self._carries(call, name)
            if source is None:
                break
            added.update(n for n in call.reads() if self.graph.values[n].kind is Kind.STATE)
            name = source
        return name, frozenset(added)

    def is_gradient(self, name: str, parameter: str) -> bool:
        """Whether a value carries the whole gradient of a parameter."""
        total = self.total(parameter)
        return total is not None and self.path(name)[0] == self.path(total)[0]

    @functools.cached_property
    def cleared(self) -> Mapping[str, str]:
        """Parameter -> the slot of its gradients in earlier steps, which this step clears."""
        calls = [call for call in self.graph.calls.values() if call.kind is Kind.UPDATE]
        rules = [
            (c, c.layer.rule if isinstance(c.layer, MultiTensorKernel) else c.layer) for c in calls
        ]
        slots = [
            slot for call, rule in rules if isinstance(rule, Clear) for slot in call.writes.values()
        ]
        return {self.graph.values[slot].of: slot for slot in slots}

    def _carries(self, call: Call, result: str) -> str | None:
        """The gradient among the arguments of a call that only casts, scales or adds to it."""
        layer = call.layer
        rule = layer.rule if isinstance(layer, MultiTensorKernel) else layer
        if isinstance(rule, Cast | Scaled) and (
            isinstance(rule, Cast) or call.method != "backward"
        ):
            if not isinstance(layer, MultiTensorKernel):
                return next(call.reads())
            return tuple(flatten((call.args[0],)))[list(call.makes()).index(result)]
        if isinstance(rule, Accumulate) and call.kind is Kind.ACCUMULATE:
            kept = [n for n in call.reads() if self.graph.values[n].kind is not Kind.STATE]
            if len(kept) == 1 and len(list(call.reads())) == 2:
                return kept[0]
        return None

    def original(self, arg: Arg) -> object:
        """What identifies an argument: a constant, or the values before casts."""
        return arg if isinstance(arg, Const) else tuple(map(self._before_casts, flatten((arg,))))

    def _before_casts(self, name: str) -> str:
        call = self.graph.producers.get(name)
        while call is not None and type(call.layer) is Cast and call.method == "forward":
            name = next(call.reads())
            call = self.graph.producers.get(name)
        return name

    def optimizer_updates(self) -> Iterator[tuple[Call, str, str]]:
        """Yield each update of a parameter by an optimizer: the call, the parameter, and its gradient."""
        for call in self.graph.calls.values():
            layer, args = call.layer, call.args
            if isinstance(layer, IfFinite):
                layer, args = layer.rule, args[1:]
            rule = layer.rule if isinstance(layer, MultiTensorKernel) else layer
            if call.kind is not Kind.UPDATE or not isinstance(rule, Optimizer):
                continue
            named = dict(zip(arguments_of(type(rule)), args, strict=False))
            pairs = zip(flatten((named["parameter"],)), flatten((named["grad"],)), strict=True)
            for parameter, gradient in pairs:
                yield call, parameter, gradient


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold: a sentence, and a function that yields each fault as text.

    `of_updates` rules hold only where an optimizer updates the parameters.
    """

    sentence: str
    faults: Callable[[Step], Iterator[str]]
    of_updates: bool = False


def _reversed_once(step: Step) -> Iterator[str]:
    counts = Counter(
        call.backward_of
        for call in step.graph.calls.values()
        if call.kind is Kind.BACKWARD and not call.repeats
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
    """The value from which the reverse pass starts: the first output."""
    return frozenset(step.graph.outputs[:1])


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
                if not isinstance(arg, str) or step.graph.values[arg].spec.shape != ():
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
    stated = step.graph.gradients
    for name in sorted(reached ^ stated.keys()):
        yield f"{name!r} {'has no' if name in reached else 'needs no'} gradient"
    for parameter, gradient in stated.items():
        if not step.is_gradient(gradient, parameter):
            yield f"{gradient!r} is not the gradient of {parameter!r}"


def _updated_once(step: Step) -> Iterator[str]:
    found: Counter[str] = Counter()
    for call, parameter, gradient in step.optimizer_updates():
        found[parameter] += 1
        if parameter not in call.writes.values():
            yield f"{call.name!r} does not write {parameter!r}"
        if not step.is_gradient(gradient, parameter):
            yield f"{parameter!r} is updated by {gradient!r}, which is not its gradient"
        if parameter in step.cleared and step.cleared[parameter] not in step.path(gradient)[1]:
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


RULES = (
    Rule(
        "A call of the forward pass has at most one backward call, of the same layer",
        _reversed_once,
    ),
    Rule("Each use of a value that depends on a parameter contributes to its gradient", _every_use),
    Rule("A backward call reads the whole gradients of the outputs of its call", _reads_gradients),
    Rule("A backward call reads what its call has read and made", _reads_forward),
    Rule("Each parameter that the loss depends on has its own gradient", _parameter_gradients),
    Rule(
        "Each parameter with a gradient is updated once, by this gradient and those that were added up",
        _updated_once,
        True,
    ),
    Rule("A slot is written at most once, and a frozen parameter never", _written_once),
    Rule("Each new state of a layer is written into its slot", _new_states, True),
)
"""What must hold for the graph of a training step."""
