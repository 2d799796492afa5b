"""Matching: find the expressions in a graph that a kernel's pattern describes.

An expression does not match if a call outside it reads one of its inner values, or if one of its layers has
been replaced by a kernel already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphnet.graph import Arg, Call, Const, Graph, Kind
from graphnet.sdk import CHAIN, Cast, Kernel, Layer, Pattern, Registry, has_chain

LONGEST_CHAIN = 32  # the most layers in a chain that is offered to a kernel


@dataclass(frozen=True, slots=True)
class Match:
    """One expression that fits a pattern.

    `bound` maps the pattern's names to arguments; `layers` are the layers, the last one first; `inner` are
    the calls other than the last.
    """

    bound: Mapping[str, Arg]
    layers: tuple[Layer, ...]
    inner: tuple[str, ...]


class Matcher:
    """Finds the matches of one pattern in one graph."""

    def __init__(self, graph: Graph, pattern: Pattern, registry: Registry) -> None:
        self.graph = graph
        self.pattern = pattern
        self.registry = registry

    def matches(self, call: Call) -> Iterator[Match]:
        """Yield the expressions that end with a call: of chains one for each length, the longest first."""
        for length in range(LONGEST_CHAIN, 0, -1) if has_chain(self.pattern) else (0,):
            bound: dict[str, Arg] = {}
            found: list[Call] = []
            if self.fits(self.pattern, call.results[0], call, bound, found, length):
                layers = (c.layer for c in found if not isinstance(c.layer, Cast))
                inner = tuple(c.name for c in found[1:])
                yield Match(bound, tuple(one for one in layers if isinstance(one, Layer)), inner)

    def fits(
        self,
        pattern: Pattern,
        value: object,
        call: Call | None,
        bound: dict[str, Arg],
        found: list[Call],
        length: int,
    ) -> bool:
        if isinstance(pattern, str):
            arg = value if isinstance(value, (str, tuple, Const)) else Const(None)
            return bound.setdefault(pattern, arg) == arg
        if pattern[0] == CHAIN:
            return self.chain(pattern[1:], value, bound, found, length)
        call = call or self.inner(value)
        layer = self.replaceable(call, value)
        if call is None or layer is None or not self.registry.is_named(type(layer), pattern[0]):
            return False
        args = _arguments(layer, call, len(pattern) - 1)
        if len(args) != len(pattern) - 1:
            return False
        found.append(call)
        return all(
            self.fits(part, arg, None, bound, found, length)
            for part, arg in zip(pattern[1:], args, strict=True)
        )

    def chain(
        self,
        names: tuple[str, str],
        value: object,
        bound: dict[str, Arg],
        found: list[Call],
        length: int,
    ) -> bool:
        """Whether a chain of `length` layers, each with one input, makes a value.

        Binds the chain's input and all parameters. Casts between the layers count as links, but the first
        link is never a cast.
        """
        parameters: tuple[str, ...] = ()
        for _ in range(length):
            call = self.inner(value)
            layer = self.replaceable(call, value)
            link = self.link(call, layer) if call and layer else None
            if call is None or link is None:
                return False
            value, own = link
            parameters = own + parameters
            found.append(call)
        if not isinstance(value, str) or isinstance(found[-1].layer, Cast):
            return False
        x, tail = names
        return (
            bound.setdefault(x, value) == value and bound.setdefault(tail, parameters) == parameters
        )

    def link(self, call: Call, layer: Layer) -> tuple[Arg, tuple[str, ...]] | None:
        """The input and the present parameters of a layer; None if it has states or several inputs."""
        ports = call.ports()
        names = layer.signature.tensors
        specs = {name: self.graph.spec_of(ports[name]) for name in names}
        parameters, states = layer.parameters(specs), layer.states(specs)
        inputs = [name for name in names if name not in parameters and name not in states]
        if states or len(inputs) != 1 or "key" in layer.signature.forward:
            return None
        own = tuple(ports[name] for name in names if name in parameters)
        return ports[inputs[0]], tuple(arg for arg in own if isinstance(arg, str))

    def inner(self, value: object) -> Call | None:
        """The call that makes a value, if the value has one reader and is no output; else None."""
        seen = value in self.graph.outputs or len(self.graph.readers.get(str(value), ())) != 1
        return self.graph.producers.get(value) if isinstance(value, str) and not seen else None

    def replaceable(self, call: Call | None, value: object) -> Layer | None:
        """The layer of a call whose first result is the value; None for a kernel."""
        if call is None or call.kind not in (Kind.LAYER, Kind.LOSS) or call.method != "forward":
            return None
        layer = call.layer if call.results[0] == value else None
        return layer if isinstance(layer, Layer) and not isinstance(layer, Kernel) else None


def _arguments(layer: Layer, call: Call, count: int) -> list[Arg]:
    """The arguments of a call in the order of a pattern, which may name each of `*xs`."""
    ports = call.ports()
    args = [ports[name] for name in layer.signature.tensors]
    if layer.signature.variadic and count > 1 and isinstance(args[0], tuple):
        return [*args[0], *args[1:]]
    return args
