"""Kernels: replace expressions of layers by kernels that compute the same.

Kernels are tried in the order of registration, larger patterns first. A kernel replaces a match before
differentiation, so its own backward becomes the backward of the whole expression. A value inside the
expression that anything else reads prevents the match.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from graphnet.build import resolve_view
from graphnet.errors import UnknownNameError, blame, nearest
from graphnet.graph import SOURCES, Arg, Call, Const, Graph, Kind, Value
from graphnet.layer import Kernel, Layer, Pattern, Site, parse_pattern
from graphnet.observe import observe
from graphnet.passes.differentiate import at
from graphnet.registry import Entry, Registry


def choose(registry: Registry, names: str) -> tuple[Entry, ...]:
    """The kernels behind `--kernels`: "auto" (all), "reference" (none), or a namespace such as "aten".

    Raises UnknownNameError for a namespace in which no plugin registered a kernel.
    """
    if names == "reference":
        return ()
    found = [
        entry
        for entry in registry.kernels.values()
        if names in ("auto", entry.name.partition("/")[0])
    ]
    if not found and names != "auto":
        known = {entry.name.partition("/")[0] for entry in registry.kernels.values()}
        raise UnknownNameError(
            f"unknown kernels {names!r}. {nearest(names, known | {'auto', 'reference'})}"
        )
    return tuple(sorted(found, key=lambda entry: -_size(parse_pattern(entry.value))))


def _size(pattern: Pattern) -> int:
    return 0 if isinstance(pattern, str) else 1 + sum(_size(part) for part in pattern[1:])


def substitute(graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry) -> Graph:
    """Put kernels where they match. Raises LayerError when a kernel's own code fails."""
    for entry in kernels:
        graph = _Substitution(graph, entry, registry).run()
    return graph


def kernel_for(
    layer: Layer, specs: Mapping[str, Any], device: torch.device, registry: Registry
) -> Kernel | None:
    """The first kernel that replaces this layer alone, for arguments of these specs."""
    alone = (registry.name_of(layer), *layer.signature.tensors)
    for entry in registry.kernels.values():
        if parse_pattern(entry.value) == alone:
            kernel: Kernel | None = entry.value.match(Site((layer,), specs, device))
            if kernel is not None:
                return kernel
    return None


@dataclass(frozen=True, slots=True)
class _Match:
    bound: Mapping[str, Arg]
    layers: tuple[Layer, ...]
    inner: tuple[str, ...]


class _Substitution:
    """One kernel over one graph."""

    def __init__(self, graph: Graph, entry: Entry, registry: Registry) -> None:
        self.graph = graph
        self.entry = entry
        self.kernel: type[Kernel] = entry.value
        self.pattern = parse_pattern(self.kernel)
        self.names = registry.name_of

    def run(self) -> Graph:
        calls, values = dict(self.graph.calls), dict(self.graph.values)
        for name, call in self.graph.calls.items():
            if name not in calls:
                continue  # inside an expression that has been replaced
            match = self.match(call)
            if match is None or any(inner not in calls for inner in match.inner):
                continue
            kernel = self.instance(call, match)
            if kernel is None:
                continue
            for inner in match.inner:
                for made in calls.pop(inner).makes():
                    del values[made]
            self.replace(call, kernel, match, calls, values)
        return replace(self.graph, calls=calls, values=values)

    def match(self, call: Call) -> _Match | None:
        bound: dict[str, Arg] = {}
        found: list[Call] = []
        if not self.fits(self.pattern, call.results[0], call, bound, found):
            return None
        layers = tuple(c.layer for c in found if isinstance(c.layer, Layer))
        return _Match(bound, layers, tuple(c.name for c in found[1:]))

    def fits(
        self,
        pattern: Pattern,
        value: object,
        call: Call | None,
        bound: dict[str, Arg],
        found: list[Call],
    ) -> bool:
        if isinstance(pattern, str):
            arg = value if isinstance(value, (str, tuple, Const)) else Const(None)
            return bound.setdefault(pattern, arg) == arg
        if call is None:
            call = self.graph.producers.get(value) if isinstance(value, str) else None
            read_by = self.graph.readers.get(str(value), ())
            if call is None or len(read_by) != 1 or value in self.graph.outputs:
                return False
        if call.kind not in (Kind.LAYER, Kind.LOSS) or call.method != "forward":
            return False
        layer = call.layer
        if not isinstance(layer, Layer) or isinstance(layer, Kernel):
            return False
        if self.names(layer) != pattern[0] or call.results[0] != value:
            return False
        ports = call.ports()
        args = [ports[name] for name in layer.signature.tensors]
        if len(args) != len(pattern) - 1:
            return False
        found.append(call)
        return all(
            self.fits(part, arg, None, bound, found)
            for part, arg in zip(pattern[1:], args, strict=True)
        )

    def instance(self, call: Call, match: _Match) -> Kernel | None:
        specs = {name: self.graph.spec_of(arg) for name, arg in match.bound.items()}
        device = self.graph.values[str(call.results[0])].spec.device
        with blame(f"{at(call)}kernel {self.entry.name!r}: ", "match"):
            return self.kernel.match(Site(match.layers, specs, device))

    def replace(
        self,
        call: Call,
        kernel: Kernel,
        match: _Match,
        calls: dict[str, Call],
        values: dict[str, Value],
    ) -> None:
        """Put the kernel in the place of `call`; its outputs keep their names, its saves are its own."""
        specs = {name: self.graph.spec_of(arg) for name, arg in match.bound.items()}
        layer = call.layer
        assert isinstance(layer, Layer)
        with blame(f"{at(call)}kernel {self.entry.name!r}: ", "forward"):
            observed = observe(kernel, "forward", {n: specs[n] for n in kernel.signature.tensors})
        for made in call.makes():
            if made not in call.results[: len(layer.outputs)]:
                del values[made]
        names = call.results[: len(layer.outputs)] + tuple(f"{call.name}.{s}" for s in kernel.saves)
        for name, seen in zip(names, observed, strict=True):
            assert isinstance(name, str)
            spec = seen.spec.on(self.graph.values[str(call.results[0])].spec.device)
            values[name] = Value(
                name, spec, call.kind, view_of=resolve_view(match.bound, seen.view_of)
            )
        bound: dict[str, Arg] = {**match.bound, "specs": Const(specs)}
        calls[call.name] = replace(
            call,
            layer=kernel,
            args=tuple(bound[name] for name in kernel.signature.forward),
            results=names,
            title=f"{call.title} [{self.entry.name.partition('/')[0]}]",
        )
        self.store(kernel.memory_formats, match.bound, values)

    def store(
        self,
        formats: Mapping[str, torch.memory_format],
        bound: Mapping[str, Arg],
        values: dict[str, Value],
    ) -> None:
        """Note the strides in which a stored value is best kept; the first kernel to ask decides."""
        for port, memory_format in formats.items():
            name = bound.get(port)
            if isinstance(name, str) and values[name].kind in SOURCES:
                value = values[name]
                if value.memory_format is None:
                    values[name] = replace(value, memory_format=memory_format)
