"""Substitute: put kernels in the place of the expressions that they compute."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

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
from graphnet.passes.select_kernels import _AXES
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


def substitute(
    graph: Graph,
    *,
    kernels: tuple[Entry, ...],
    registry: Registry,
    plain: Container[str] = frozenset(),
) -> Graph:
    """Put kernels where they match. Raises LayerError when a kernel's own code fails.

    The calls in `plain` get none that works in blocks of pixels.
    """
    present = {type(call.layer) for call in graph.calls.values() if isinstance(call.layer, Layer)}
    live = live_values(graph)  # a kernel's results are those of the expression that it replaces
    for entry in kernels:
        names = layer_names(entry.value.pattern)
        if all(any(registry.is_named(layer, name) for layer in present) for name in names):
            graph = _Substitution(graph, entry, registry, plain, live).run()
    return graph


def plain_calls(graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry) -> frozenset[str]:
    """The calls at which kernels that work in blocks gain nothing: they get one for N C H W."""
    plain: frozenset[str] = frozenset()
    while True:
        placed = substitute(graph, kernels=kernels, registry=registry, plain=plain)
        more = unprofitable(placed) - plain
        if not more:
            return plain
        plain |= more


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute some calls at once: a kernel in the place of `root`, or root's own layer.

    `entry` is the kernel's name, empty for the layer itself; `replaced` are the calls that it stands for.
    `bound` are its arguments by name, `data` those of which nobody will want the gradient.
    """

    root: str
    entry: str
    layer: Layer
    replaced: tuple[str, ...]
    bound: tuple[tuple[str, Arg], ...]
    data: frozenset[str]


def candidates(
    graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry
) -> Iterator[Candidate]:
    """Every layer of a graph that has no kernels yet, and every kernel that fits somewhere."""
    live = live_values(graph)
    for name, call in graph.calls.items():
        if isinstance(call.layer, Layer) and call.kind in (Kind.LAYER, Kind.LOSS):
            ports, names = call.ports(), call.layer.signature.tensors
            arguments = {port: ports[port] for port in names}
            bound, data = tuple(arguments.items()), _data(arguments, live)
            yield Candidate(name, "", call.layer, (name,), bound, data)
    for entry in kernels:
        substitution = _Substitution(graph, entry, registry, frozenset(), live)
        for name, call in graph.calls.items():
            if found := substitution.find(call):
                match, kernel = found
                replaced = (name, *match.inner)
                bound = tuple((port, match.bound[port]) for port in kernel.signature.tensors)
                data = _data(match.bound, live)
                yield Candidate(name, entry.name, kernel, replaced, bound, data)


def _data(arguments: Mapping[str, Arg], live: set[str]) -> frozenset[str]:
    """The names of the arguments that no parameter has an influence on."""
    return frozenset(name for name, arg in arguments.items() if not reads_live(arg, live))


class Everywhere:
    """Contains every call."""

    def __contains__(self, call: object) -> bool:
        return True


class _Substitution:
    """One kernel over one graph."""

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
                continue  # inside an expression that has been replaced
            if (name, self.entry.name) in self.graph.refused:
                continue
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
        """The kernel for the expression that ends with a call; of chains in it, the longest that it takes."""
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
        """Put the kernel in the place of `call`; its outputs keep their names, its saves are its own."""
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
            if port in blocks:  # until layouts are decided, every image has its shape N C H W
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
        """The names that the new values of the kernel's states had before; it must move all of them."""
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
        """Note the strides in which a stored value is best kept; the first kernel to ask decides."""
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
        """The source that a value has its strides from: itself, or what a pointwise call reads."""
        while self.graph.values[name].kind not in SOURCES:
            call = self.graph.producers[name]
            if call.kind is Kind.FOLD:  # it changes parameters where they stand
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
    """The spec of an image of this logical spec that lies in these blocks."""
    if spec is None or blocks is None:
        return spec
    return replace(spec, shape=blocked_shape(spec.shape, blocks))
