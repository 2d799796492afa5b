"""Differentiate: add the calls of the reverse pass to a graph with a loss.

Reverse-mode differentiation over the topological order (Griewank & Walther 2008, ch. 3): each layer
call whose output has a gradient gets one backward call, and a value read more than once gets an
explicit sum of its gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphnet.errors import LayerError, blame
from graphnet.graph import (
    Arg,
    Call,
    Const,
    Gradient,
    Graph,
    Kind,
    Result,
    Slot,
    Value,
    gradient_names,
    gradients_are_bare,
    observe_backward,
    resolve_view,
)
from graphnet.passes.rewrite import at
from graphnet.sdk import Accumulate, Constant, Layer, Weighted

_DIFFERENTIABLE = frozenset({Kind.LAYER, Kind.LOSS})


def differentiate(graph: Graph, *, share: float = 1.0, start: str | None = None) -> Graph:
    """Add the reverse pass from the graph's only output, a 0-dim loss, to its parameters.

    The graph's `gradients` then map each parameter to the value that holds its gradient.

    Args:
        graph: a forward graph with a loss.
        share: a number that multiplies the loss.
        start: a 0-dim value that multiplies the loss, in the place of `share`.

    Raises:
        LayerError: a layer has no backward, and a parameter before it needs a gradient.
    """
    (loss,) = graph.outputs
    return _Differentiator(graph).run(loss, share, start)


def live_values(graph: Graph) -> set[str]:
    """The values that depend on a parameter: only these need a gradient."""
    live = set(graph.parameters)
    for call in graph.order():
        if call.kind in _DIFFERENTIABLE and any(name in live for name in call.reads()):
            layer = call.layer
            assert isinstance(layer, Layer)
            live.update(
                name for name in call.results[: len(layer.outputs)] if isinstance(name, str)
            )
    return live


def reads_live(arg: Arg, live: set[str]) -> bool:
    """Whether an argument is one of the live values, or a tuple that contains one."""
    if isinstance(arg, tuple):
        return any(name in live for name in arg)
    return isinstance(arg, str) and arg in live


class _Differentiator:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls = dict(graph.calls)
        self.values = dict(graph.values)
        self.order = graph.order()
        self.contributions: dict[str, list[str]] = {}
        self.parts: dict[str, int] = {}  # contribution -> the micro-batch that it belongs to
        self.live = live_values(graph)

    def run(self, loss: str, share: float, start: str | None) -> Graph:
        if start is None:
            name = "@one" if share == 1.0 else "@share"
            spec = self.values[loss].spec
            self.values[name] = Value(name, spec, Kind.CONSTANT, initializer=Constant(share))
            start = name
        self.contributions[loss] = [start]
        for call in reversed(self.order):
            if call.kind in _DIFFERENTIABLE and call.method == "forward":
                self.backward(call)
        gradients: dict[str, str] = {}
        partial: dict[str, tuple[str, ...]] = {}
        for name in self.graph.parameters:
            totals = self.totals(name)
            if len(totals) == 1:
                gradients[name] = totals[0]
            elif totals:
                partial[name] = totals
        return replace(
            self.graph,
            calls=_part_by_part(self.calls),
            values=self.values,
            gradients=gradients,
            partial_gradients=partial,
        )

    def totals(self, value: str) -> tuple[str, ...]:
        """The gradients of a value: one for each micro-batch, or for the whole batch."""
        parts: dict[int | None, list[str]] = {}
        for name in self.contributions.get(value, ()):
            parts.setdefault(self.parts.get(name), []).append(name)
        if len(parts) < 2:
            total = self.total(value)
            return () if total is None else (total,)
        return tuple(
            self.sum(value, names, part) for part, names in sorted(parts.items(), key=_number)
        )

    def total(self, value: str) -> str | None:
        """The whole gradient of a value: its only contribution, or the sum of several."""
        parts = self.contributions.get(value)
        if not parts:
            return None
        self.contributions[value] = [self.sum(value, parts, self.parts.get(parts[0]))]
        return self.contributions[value][0]

    def sum(self, value: str, names: Sequence[str], part: int | None) -> str:
        """The sum of gradients of a value, all of one micro-batch; a single one is its own sum."""
        if len(names) == 1:
            return names[0]
        of, mark = self.values[value], "" if part is None else f"@{part}"
        total = of.sibling(f":grad{mark}", Kind.ACCUMULATE, self.values[names[0]].spec)
        self.values[total.name] = replace(total, layout=of.layout)
        call = f"{value}:accumulate{mark}"
        self.calls[call] = Call(
            name=call,
            kind=Kind.ACCUMULATE,
            layer=Accumulate(),
            method="forward",
            args=(tuple(names),),
            results=(total.name,),
            title="accumulate",
            node=of.node or value,
            part=part,
        )
        return total.name

    def backward(self, call: Call) -> None:
        layer = call.layer
        assert isinstance(layer, Layer)
        ports = call.ports()
        grads = {f"grad_{name}": self.total(str(ports[name])) for name in layer.outputs}
        if not any(grads.values()):
            return
        specs = {name: self.graph.spec_of(arg) for name, arg in ports.items() if name != "specs"}
        names = gradient_names(layer, {name: specs[name] for name in layer.signature.tensors})
        wanted = frozenset(
            name
            for name in names
            if name not in layer.nondifferentiable and reads_live(ports[name], self.live)
        )
        if not wanted:
            return
        if layer.signature.backward == ():
            raise LayerError(
                f"{at(call)}defines no backward, but the parameters before it need a gradient. "
                f"Give {type(layer).__name__} a backward, or take it out of a trained model."
            )
        args: dict[str, Arg] = {**ports, "specs": Const(specs), "wanted": Const(wanted)}
        for name, gradient in grads.items():
            if gradient is None:
                args[name] = self.missing(layer, name, call)
            elif name in layer.signature.ones and self.is_one(gradient):
                args[name] = Const(1.0)
            else:
                args[name] = gradient
        asked = tuple(args[name] for name in layer.signature.backward)
        observed = self.observe(call, layer, specs, wanted, args)
        results: list[Slot] = []
        for name, seen in zip(names, observed, strict=True):
            results.append(self.collect(call, name, ports[name], seen, name in wanted, args))
        if gradients_are_bare(layer, specs):  # the gradients of `*xs` are the results themselves
            (alone,) = results
            assert isinstance(alone, tuple)
            results = [*alone]
        self.calls[f"{call.name}:backward"] = replace(
            call,
            name=f"{call.name}:backward",
            kind=Kind.BACKWARD,
            method="backward",
            backward_of=call.name,
            args=asked,
            results=tuple(results),
        )

    def is_one(self, gradient: str) -> bool:
        """Whether a gradient is the number 1: the reverse pass starts from it."""
        return self.values[gradient].initializer == Constant(1.0)

    def missing(self, layer: Layer, name: str, call: Call) -> Arg:
        """The gradient of an output that nobody reads: None if the layer accepts that, else zeros."""
        if name in layer.signature.optional:
            return Const(None)
        position = [f"grad_{output}" for output in layer.outputs].index(name)
        output = self.values[str(call.results[position])]
        zeros = output.sibling(":zeros", Kind.CONSTANT, output.spec)
        self.values.setdefault(zeros.name, replace(zeros, initializer=Constant(0.0)))
        return zeros.name

    def observe(
        self,
        call: Call,
        layer: Layer,
        specs: Mapping[str, Any],
        wanted: frozenset[str],
        args: Mapping[str, Arg],
    ) -> tuple[Result | tuple[Result | None, ...] | None, ...]:
        gradients: dict[str, Gradient] = {}
        for output in layer.outputs:
            arg = args[name := f"grad_{output}"]
            gradients[name] = arg.value if isinstance(arg, Const) else self.values[str(arg)].spec
        with blame(at(call), "backward"):
            return observe_backward(layer, specs, gradients=gradients, wanted=wanted)

    def collect(
        self,
        call: Call,
        name: str,
        arg: Arg,
        seen: Result | tuple[Result | None, ...] | None,
        wanted: bool,
        args: Mapping[str, Arg],
    ) -> Slot:
        """Name the gradients that are needed, and record them as contributions."""
        if isinstance(arg, tuple):
            assert isinstance(seen, tuple)
            return tuple(
                self.contribute(call, f"grad_{name}_{i}", value, one, args) if wanted else None
                for i, (value, one) in enumerate(zip(arg, seen, strict=True))
            )
        if not wanted or not isinstance(arg, str):
            return None
        assert not isinstance(seen, tuple)
        return self.contribute(call, f"grad_{name}", arg, seen, args)

    def contribute(
        self, call: Call, port: str, value: str, seen: Result | None, args: Mapping[str, Arg]
    ) -> str | None:
        if value not in self.live or seen is None:
            return None
        spec = seen.spec.on(self.values[value].spec.device)
        view_of = resolve_view(args, seen.view_of)
        name = f"{call.name}.{port}"
        self.values[name] = Value(
            name,
            spec,
            Kind.BACKWARD,
            view_of=view_of,
            layout=self.values[value].layout,
            node=call.name,
            port=port,
            of=value,
        )
        self.contributions.setdefault(value, []).append(name)
        if call.part is not None:
            self.parts[name] = call.part
        return name


def _number(item: tuple[int | None, object]) -> int:
    part, _ = item
    return -1 if part is None else part


def _part_by_part(calls: Mapping[str, Call]) -> dict[str, Call]:
    """The calls in an order in which each micro-batch runs forward and backward before the next begins.

    First comes what all micro-batches read: the start of the reverse pass, and the sum of their weights.
    """
    count = 1 + max((call.part for call in calls.values() if call.part is not None), default=-1)
    shared = _before_weights(calls)

    def position(item: tuple[str, Call]) -> int:
        name, call = item
        if name in shared:
            return -1
        if call.part is not None:
            return call.part
        return -1 if call.kind is Kind.BACKWARD else count  # the first start from a constant

    return dict(sorted(calls.items(), key=position)) if count else dict(calls)


def _before_weights(calls: Mapping[str, Call]) -> set[str]:
    """The calls that compute the sums of the weights of micro-batches."""
    makers = {name: call for call in calls.values() for name in call.makes()}
    left = [str(c.args[2]) for c in calls.values() if isinstance(c.layer, Weighted)]
    found: set[str] = set()
    while left:
        call = makers.get(left.pop())
        if call is not None and call.name not in found:
            found.add(call.name)
            left += call.reads()
    return found
