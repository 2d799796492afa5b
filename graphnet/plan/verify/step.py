"""Step: what the rules of a training step ask of its graph.

The gradient of a value is the sum of its contributions: one result of a backward call for each use of the
value in the forward pass. A value in the graph carries a gradient if it is that gradient, cast, scaled, or
added to the gradients of earlier steps.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphnet.graph import (
    CAST,
    Arg,
    Call,
    Const,
    Graph,
    Kind,
    Slot,
    flat,
    flatten,
    gradient_names,
    renamed,
)
from graphnet.plan.verify.buckets import Buckets
from graphnet.plan.verify.spreads import Spreads, rule_of
from graphnet.sdk import (
    ALONE,
    DTYPES,
    Accumulate,
    Cast,
    Clear,
    IfFinite,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Processes,
    Scaled,
    Times,
    WeightedSum,
    arguments_of,
)

_FORWARD = frozenset({Kind.LAYER, Kind.LOSS})


@dataclass(frozen=True)
class Carried:
    """What values carry together: the sum of results of backward calls, and of slots.

    `gradients` and `slots` say how often each of them is in the sum. `factors` are the factors of a summand;
    a sum whose summands have been multiplied by different ones has several.
    """

    gradients: Mapping[str, int]
    slots: Mapping[str, int]
    factors: frozenset[tuple[str, ...]]


class Step:
    """A graph with a reverse pass, and what the rules ask of it."""

    def __init__(self, graph: Graph, processes: Processes = ALONE) -> None:
        self.kept_casts = {
            name: value.of for name, value in graph.values.items() if value.role == CAST
        }
        self.graph = graph = _with_casts(_without_repetitions(graph), self.kept_casts)
        self.processes = processes
        self.buckets = Buckets(graph)
        self.forward = [
            one
            for call in graph.calls.values()
            if call.kind in _FORWARD
            for one in self._single(call)
        ]
        self.backward: dict[str, Call] = {}  # name of a forward call -> its backward call
        for call in graph.calls.values():
            if call.kind is Kind.BACKWARD:
                self.backward.setdefault(call.backward_of, call)

    @functools.cached_property
    def spreads(self) -> Spreads:
        """The values that differ from process to process."""
        return Spreads(self.graph, self.processes)

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

    @functools.cached_property
    def _ports(self) -> Mapping[str, Mapping[str, Arg]]:
        """Name of a forward call -> its arguments that can have a gradient -> the value there."""
        found: dict[str, Mapping[str, Arg]] = {}
        for call in self.forward:
            layer, named = call.layer, call.ports()
            assert isinstance(layer, Layer)
            specs = {name: self.graph.spec_of(named[name]) for name in layer.signature.tensors}
            found[call.name] = {name: named[name] for name in gradient_names(layer, specs)}
        return found

    def wanted(self, call: Call) -> frozenset[str]:
        """The arguments of a forward call whose gradient is needed."""
        layer = call.layer
        assert isinstance(layer, Layer)
        return frozenset(
            name
            for name, arg in self._ports[call.name].items()
            if name not in layer.nondifferentiable and not self.live.isdisjoint(flatten((arg,)))
        )

    def gradients(self, call: Call) -> Iterator[tuple[str, str, str | None]]:
        """Yield each use of a live value in a wanted argument: argument, value, and its contribution."""
        back = self.backward.get(call.name)
        results = self._results(call, back) if back is not None else {}
        for port in sorted(self.wanted(call)):
            values = tuple(flatten((self._ports[call.name][port],)))
            made = results.get(port, (None,) * len(values))
            if len(made) != len(values):
                made = (None,) * len(values)
            for value, name in zip(values, made, strict=True):
                if value in self.live:
                    yield port, value, name

    def _results(self, call: Call, back: Call) -> dict[str, tuple[str | None, ...]]:
        """Argument of a forward call -> the results of its backward call for it."""
        layer, names = call.layer, tuple(self._ports[call.name])
        assert isinstance(layer, Layer)
        if names == (
            layer.signature.variadic,
        ):  # the gradients of `*xs` are the results themselves
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
        """The sorted summands of each sum -> its result; a sum in a sum stands for its own summands."""
        summands: dict[str, list[str]] = {}
        for call in self.graph.calls.values():
            if call.kind is Kind.ACCUMULATE and isinstance(call.layer, Accumulate):
                summands[next(call.makes())] = [
                    one for name in call.reads() for one in summands.get(name, [name])
                ]
        return {tuple(sorted(names)): result for result, names in summands.items()}

    def total(self, value: str) -> str | None:
        """The value in the graph that is the whole gradient of a value; None if there is none."""
        parts = self.contributions.get(value, ())
        return parts[0] if len(parts) == 1 else self._sums.get(tuple(sorted(parts)))

    def carried(self, *names: str) -> Carried:
        """What values carry together: gradients that are cast, scaled, and added up."""
        gradients, slots = Counter[str](), Counter[str]()
        all_factors: set[tuple[str, ...]] = set()
        left: list[tuple[str, tuple[str, ...]]] = [(name, ()) for name in names]
        while left:
            name, factors = left.pop()
            call = self.graph.producers.get(name)
            rule = None if call is None else rule_of(call.layer)
            if call is not None and isinstance(rule, Cast | Scaled):
                source = next(call.reads())
                if rule is not call.layer:
                    source = tuple(flatten((call.args[0],)))[list(call.makes()).index(name)]
                if isinstance(rule, Scaled):
                    factors = (*factors, *flatten(call.args[1:]))
                left.append((source, factors))
            elif call is not None and isinstance(rule, Accumulate) and call.kind is Kind.ACCUMULATE:
                left += [(one, factors) for one in call.reads()]
            elif call is not None and (sent := self.buckets.sent(call)) is not None:
                left.append((sent, factors))
            else:
                all_factors.add(factors)
                is_slot = self.graph.values[name].kind is Kind.STATE
                (slots if is_slot else gradients)[name] += 1
        return Carried(gradients, slots, frozenset(all_factors))

    def summands(self, name: str) -> Counter[str]:
        """The values of which a value is the sum, with weights or without, in this process."""
        found, left = Counter[str](), [name]
        while left:
            one = left.pop()
            call = self.graph.producers.get(one)
            if call is not None and isinstance(call.layer, Accumulate | WeightedSum):
                left += call.reads()
            elif call is not None and (sent := self.buckets.sent(call)) is not None:
                left.append(sent)
            else:
                found[one] += 1
        return found

    def averaged(self, name: str) -> str:
        """The value of which a value is the mean over all processes; with one process, the value itself."""
        call = self.graph.producers.get(name)
        share = 1.0 / self.processes.count
        if self.processes.count > 1 and call is not None and call.layer == Times(factor=share):
            name = self.before_sums(next(call.reads()))
        return name

    def before_sums(self, name: str) -> str:
        """The value of which a value is the sum over all processes, or the value itself."""
        call = self.graph.producers.get(name)
        while call is not None and (sent := self.buckets.sent(call)) is not None:
            name, call = sent, self.graph.producers.get(sent)
        return name

    def are_gradients(self, names: Sequence[str], parameter: str) -> bool:
        """Whether values, one or one of each micro-batch, carry the whole gradient of a parameter."""
        contributions = self.contributions.get(parameter, ())
        found = self.carried(*names)
        one = len(found.factors) == 1
        return one and found.gradients == self.carried(*contributions).gradients

    @functools.cached_property
    def cleared(self) -> Mapping[str, frozenset[str]]:
        """Parameter -> the slots of its gradients in earlier steps, which this step clears."""
        found: dict[str, set[str]] = {}
        for call in self.graph.calls.values():
            if isinstance(rule_of(call.layer), Clear):
                for slot in call.writes.values():
                    found.setdefault(self.graph.values[slot].of, set()).add(slot)
        return {parameter: frozenset(slots) for parameter, slots in found.items()}

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
        """Yield each update of a parameter by an optimizer: the call, the parameter, and its gradient.

        If a shard is updated, it stands for the parameter: see `Buckets.cut_from`.
        """
        for call in self.graph.calls.values():
            layer, args = call.layer, call.args
            if isinstance(layer, IfFinite):
                layer, args = layer.rule, args[1:]
            rule = rule_of(layer)
            if call.kind is not Kind.UPDATE or not isinstance(rule, Optimizer):
                continue
            named = dict(zip(arguments_of(type(rule)), args, strict=False))
            pairs = zip(flatten((named["parameter"],)), flatten((named["grad"],)), strict=True)
            for parameter, gradient in pairs:
                yield call, parameter, gradient


def _with_casts(graph: Graph, kept: Mapping[str, str]) -> Graph:
    """The graph in which parameters are cast where it reads slots that hold their casts."""
    if not kept:
        return graph
    values = dict(graph.values)
    casts: dict[str, Call] = {}
    for slot, parameter in kept.items():
        value = values[slot]
        values[slot] = replace(value, kind=Kind.LAYER, initializer=None)
        casts[value.node] = Call(
            name=value.node,
            kind=Kind.LAYER,
            layer=Cast(dtype=next(n for n, dtype in DTYPES.items() if dtype == value.spec.dtype)),
            method="forward",
            args=(parameter,),
            results=(slot,),
            title="cast",
            node=value.node,
        )
    return replace(graph, calls={**casts, **graph.calls}, values=values)


def _without_repetitions(graph: Graph) -> Graph:
    """The graph in which the results of a call stand for those of all calls that repeat it.

    That a repetition computes the same is checked elsewhere (replay.py).
    """
    again = {name: call for name, call in graph.calls.items() if call.repeats in graph.calls}
    if not again:
        return graph
    results = {call.repeats: graph.calls[call.repeats].results for call in again.values()}
    for call in again.values():  # what the first call no longer makes is made by a repetition
        results[call.repeats] = _merged(results[call.repeats], call.results)
    names = {
        mine: first
        for call in again.values()
        for mine, first in zip(flat(call.results), flat(results[call.repeats]), strict=True)
        if mine is not None and first is not None
    }
    calls = {
        name: replace(
            call,
            args=tuple(renamed(arg, names) for arg in call.args),
            results=results.get(name, call.results),
        )
        for name, call in graph.calls.items()
        if name not in again
    }
    return replace(
        graph,
        calls=calls,
        outputs=tuple(names.get(name, name) for name in graph.outputs),
        gradients={of: names.get(name, name) for of, name in graph.gradients.items()},
    )


def _merged(first: tuple[Slot, ...], second: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Results, with those of a second tuple where the first has none."""
    return tuple(
        tuple(a or b for a, b in zip(one, other, strict=True))
        if isinstance(one, tuple) and isinstance(other, tuple)
        else one or other
        for one, other in zip(first, second, strict=True)
    )
