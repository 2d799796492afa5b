"""Substitute: replace expressions of layers by kernels that compute the same."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

import torch

from graphnet.errors import LayerError, blame
from graphnet.graph import (
    SOURCES,
    Arg,
    Call,
    Const,
    Graph,
    Kind,
    Value,
    flatten,
    observe,
    resolve_view,
)
from graphnet.passes.block_layout import in_blocks, unprofitable
from graphnet.passes.differentiate import live_values, reads_live
from graphnet.passes.matching import Match, Matcher
from graphnet.passes.rewrite import at, bound_arguments
from graphnet.sdk import (
    Entry,
    Kernel,
    Layer,
    Layout,
    Registry,
    Site,
    Spec,
    blocked_shape,
    layer_names,
    plain_shape,
)

_AXES = {torch.channels_last: 4, torch.channels_last_3d: 5}


def substitute(
    graph: Graph,
    *,
    kernels: tuple[Entry, ...],
    registry: Registry,
    plain: Container[str] = frozenset(),
) -> Graph:
    """Replace every expression that a kernel matches by the kernel.

    Args:
        graph: a forward graph.
        kernels: the kernels, in the order in which they are tried.
        registry: maps the names in a kernel's pattern to layers.
        plain: the calls that get no kernel for blocks of pixels.

    Raises:
        LayerError: a kernel's own code fails.
    """
    present = {type(call.layer) for call in graph.calls.values() if isinstance(call.layer, Layer)}
    live = live_values(graph)  # still true after a kernel is placed: it has the same results
    for entry in kernels:
        names = layer_names(entry.value.pattern)
        if all(any(registry.is_named(layer, name) for layer in present) for name in names):
            graph = _Substitution(graph, entry, registry, plain, live).run()
    return graph


def plain_calls(graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry) -> frozenset[str]:
    """The calls for which kernels in blocks of pixels save no time: they get kernels for N C H W."""
    plain: frozenset[str] = frozenset()
    while True:
        placed = substitute(graph, kernels=kernels, registry=registry, plain=plain)
        more = unprofitable(placed) - plain
        if not more:
            return plain
        plain |= more


def _data(arguments: Mapping[str, Arg], live: set[str]) -> frozenset[str]:
    """The names of the arguments that depend on no parameter."""
    return frozenset(name for name, arg in arguments.items() if not reads_live(arg, live))


class Everywhere:
    """A container of all calls."""

    def __contains__(self, call: object) -> bool:
        return True


class _Substitution:
    """Replaces expressions of one graph by one kernel."""

    def __init__(
        self,
        graph: Graph,
        entry: Entry,
        registry: Registry,
        plain: Container[str],
        live: set[str],
    ) -> None:
        self.graph = graph
        self.plain = plain
        self.live = live
        self.entry = entry
        self.kernel: type[Kernel] = entry.value
        self.matcher = Matcher(graph, self.kernel.pattern, registry)

    def run(self) -> Graph:
        calls, values = dict(self.graph.calls), dict(self.graph.values)
        for name, call in self.graph.calls.items():
            if name not in calls:
                continue  # it was inside an expression that is replaced now
            found = self.find(call)
            if found is None:
                continue
            match, kernel = found
            gone = any(inner not in calls for inner in match.inner)
            if gone or (name in self.plain and in_blocks(kernel)):
                continue
            for inner in match.inner:
                for made in calls.pop(inner).makes():
                    del values[made]
            self.replace(call, kernel, match, calls, values)
        return replace(self.graph, calls=calls, values=values)

    def find(self, call: Call) -> tuple[Match, Kernel] | None:
        """The match that ends with a call, and its kernel; of a chain the longest that the kernel takes."""
        for match in self.matcher.matches(call):
            if kernel := self.instance(call, match):
                return match, kernel
        return None

    def instance(self, call: Call, match: Match) -> Kernel | None:
        specs = {name: self.graph.spec_of(arg) for name, arg in match.bound.items()}
        device = self.graph.values[str(call.results[0])].spec.device
        data = _data(match.bound, self.live)
        with blame(f"{at(call)}kernel {self.entry.name!r}: ", "match"):
            return self.kernel.match(Site(match.layers, specs, device, data))

    def replace(
        self,
        call: Call,
        kernel: Kernel,
        match: Match,
        calls: dict[str, Call],
        values: dict[str, Value],
    ) -> None:
        """Replace `call` by the kernel; the outputs keep their names, the saves are the kernel's."""
        specs = {name: self.graph.spec_of(arg) for name, arg in match.bound.items()}
        layer = call.layer
        assert isinstance(layer, Layer)
        blocks = kernel.layouts or {} if in_blocks(kernel) else {}
        asked = {n: blocked(specs[n], blocks.get(n)) for n in kernel.signature.tensors}
        with blame(f"{at(call)}kernel {self.entry.name!r}: ", "forward"):
            observed = observe(kernel, "forward", asked)
        for made in call.makes():
            if made not in call.results[: len(layer.outputs)]:
                del values[made]
        names = call.results[: len(layer.outputs)] + tuple(f"{call.name}.{s}" for s in kernel.saves)
        names += self.new_states(call, kernel, match)
        device = self.graph.values[str(call.results[0])].spec.device
        ports = kernel.outputs + kernel.saves + kernel.updates
        for port, name, seen in zip(ports, names, observed, strict=True):
            assert isinstance(name, str)
            spec = seen.spec.on(device)
            if port in blocks:  # before block_layout runs, each image has its shape N C H W
                spec = replace(spec, shape=plain_shape(spec.shape))
            view_of = resolve_view(match.bound, seen.view_of)
            known = self.graph.values.get(name)
            values[name] = Value(
                name,
                spec,
                call.kind,
                view_of=view_of,
                node=known.node if known else call.name,
                port=known.port if known else port,
            )
        bound: dict[str, Arg] = {**match.bound, "specs": Const(specs)}
        space, _, own = self.entry.name.partition("/")
        title = own if match.inner else call.title
        calls[call.name] = replace(
            call,
            layer=kernel,
            args=tuple(bound[name] for name in kernel.signature.forward),
            results=names,
            title=f"{title} [{space}]",
        )
        self.store(kernel.memory_formats, match.bound, values)

    def new_states(self, call: Call, kernel: Kernel, match: Match) -> tuple[str, ...]:
        """The names of the new states, which stay the same; the kernel must update all of them."""
        found: dict[Arg, str] = {}
        for one in (call, *(self.graph.calls[name] for name in match.inner)):
            assert isinstance(one.layer, Layer)
            moved = one.results[len(one.results) - len(one.layer.updates) :]
            arguments = bound_arguments(one)
            found |= {arguments[n]: str(r) for n, r in zip(one.layer.updates, moved, strict=True)}
        bound = {name: match.bound.get(name, Const(None)) for name in kernel.updates}
        if set(bound.values()) != set(found):
            raise LayerError(
                f"{at(call)}kernel {self.entry.name!r} updates {', '.join(bound) or 'no state'}, but what "
                f"it replaces updates {', '.join(map(str, found)) or 'none'}"
            )
        return tuple(found[arg] for arg in bound.values())

    def store(
        self,
        formats: Mapping[str, torch.memory_format],
        bound: Mapping[str, Arg],
        values: dict[str, Value],
    ) -> None:
        """Set the strides that a kernel wants for its sources; the first kernel that sets them wins."""
        for port, memory_format in formats.items():
            arg = bound.get(port)
            for name in flatten((arg,)) if arg is not None else ():
                source = self.stored(name)
                if source is None or values[source].memory_format is not None:
                    continue
                axes = len(values[source].spec.shape)
                if _AXES.get(memory_format, axes) == axes:
                    values[source] = replace(values[source], memory_format=memory_format)

    def stored(self, name: str) -> str | None:
        """The source whose strides a value has: itself, or through pointwise calls the one they read."""
        while self.graph.values[name].kind not in SOURCES:
            call = self.graph.producers[name]
            if call.kind is Kind.FOLD:  # its results have the strides of the parameters
                arg = call.args[call.results.index(name)]
                if not isinstance(arg, str):
                    return None
                name = arg
                continue
            layer, read = call.layer, set(call.reads())
            if not isinstance(layer, Layer) or not layer.pointwise or len(read) != 1:
                return None
            (name,) = read
        return name


def blocked(spec: Spec | None, blocks: Layout | None) -> Spec | None:
    """The spec in memory of an image with this spec in N C H W, if it is stored in these blocks."""
    if spec is None or blocks is None:
        return spec
    return replace(spec, shape=blocked_shape(spec.shape, blocks))
