"""Block layout: choose the layout of each image, and convert an image where two layers disagree.

A layer declares the blocks of its inputs and outputs (`Layer.layouts`); further blocks may follow, the same
for all its ports. The layouts are found by unification: each value has a term (blocks, variable), and each
layer makes the terms of its ports equal. A layer that declares no blocks takes N C H W. If two terms cannot
be made equal, the pass inserts a `convert` call. A variable without any block stands for N C H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from graphnet.errors import LayerError
from graphnet.graph import SOURCES, Arg, Call, Graph, Kind, Value, flatten, renamed
from graphnet.passes.rewrite import at, bound_arguments, rewire
from graphnet.sdk import Convert, Layer, Layout, blocked_shape

_PLAIN = 0  # the variable that stands for N C H W
_RUNS = frozenset({Kind.LAYER, Kind.LOSS})
Term = tuple[Layout, int]
"""A term of the unification: blocks, and a variable for the blocks that follow them."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """An argument that a call wants in another layout than the value has."""

    call: str
    value: str
    wanted: Term


def block_layout(graph: Graph, *, packed_inputs: bool) -> Graph:
    """Set the layout of every value, and insert the conversions that are needed.

    Args:
        graph: a forward graph with kernels; its outputs stay in N C H W.
        packed_inputs: inputs have the layout that their first reader wants, and the caller of the plan
            packs them; without it they are in N C H W.
    """
    return _Layout(graph, packed_inputs).rewrite()


def unprofitable(graph: Graph) -> frozenset[str]:
    """The calls whose kernels work in blocks without a gain.

    Conversions at the inputs and outputs of the graph are accepted; a conversion between two layers costs
    more time than the blocks save. (N C H W to N H W C is a view and costs nothing.) Blocks that are all
    single pixels save nothing.
    """
    return _Layout(graph).unprofitable()


def in_blocks(layer: Layer) -> bool:
    """Whether a layer declares blocks of pixels for one of its ports."""
    return any((layer.layouts or {}).values())


class _Layout:
    def __init__(self, graph: Graph, packed_inputs: bool = True) -> None:
        self.graph = graph
        self.packed_inputs = packed_inputs
        self.terms: dict[str, Term] = {}
        self.bound: dict[int, Term] = {}  # variable -> the term that replaces it
        self.variables = 1
        self.fixed: set[int] = {_PLAIN}  # the variables that cannot become N C H W any more
        self.conversions: list[Conversion] = []
        for call in graph.calls.values():
            self.call(call)

    def fresh(self) -> int:
        self.variables += 1
        return self.variables - 1

    def resolve(self, term: Term) -> Term:
        blocks, variable = term
        while variable in self.bound:
            more, variable = self.bound[variable]
            blocks += more
        return blocks, variable

    def unify(self, one: Term, other: Term) -> bool:
        """Make two terms equal; returns False, and changes nothing, if that is impossible."""
        (p, u), (q, v) = self.resolve(one), self.resolve(other)
        while p and q and p[0] == q[0]:
            p, q = p[1:], q[1:]
        if u == v or (p and q):
            return u == v and p == q
        if p or u == _PLAIN:  # then v stands for p before u
            (p, u), (q, v) = (q, v), (p, u)
        if u == _PLAIN or (v == _PLAIN and (q or u in self.fixed)):
            return False
        self.bound[u] = (q, v)
        if u in self.fixed or q:
            self.fixed.add(v)
        return True

    def call(self, call: Call) -> None:
        layer = call.layer
        if not isinstance(layer, Layer) or call.kind not in _RUNS:
            return
        declared = self.declared(layer, call)
        rest = self.fresh()
        if any(declared.values()):
            self.fixed.add(rest)
        ports = call.ports()
        for port in layer.signature.tensors:
            for value in self.images(ports[port]):
                self.read(call, value, self.term(port, declared, rest))
        for port in (*layer.outputs, *(layer.saves if layer.pointwise else ())):
            for value in self.images(ports[port]):
                self.terms[value] = self.term(port, declared, rest)

    def term(self, port: str, declared: Mapping[str, Layout], rest: int) -> Term:
        return (declared[port], rest) if port in declared else ((), _PLAIN)

    def declared(self, layer: Layer, call: Call) -> Mapping[str, Layout]:
        """The blocks that a layer declares for each port; a port without an entry takes N C H W."""
        if not layer.pointwise:
            return layer.layouts or {}
        ports = call.ports()
        names = list(flatten(ports[port] for port in layer.signature.tensors))
        shapes = {self.graph.values[name].spec.shape for name in names}
        if any(map(self.is_slot, names)) or len(shapes) > 1:
            return {}  # the shape of a parameter, or of its cast, belongs to N C H W
        return dict.fromkeys((*layer.signature.tensors, *layer.outputs, *layer.saves), ())

    def is_slot(self, name: str) -> bool:
        kind = self.graph.values[name].kind
        return kind in SOURCES and kind is not Kind.INPUT

    def images(self, arg: Arg) -> Iterator[str]:
        """The values of an argument that can be in blocks: they have four axes and are no parameters."""
        for name in flatten((arg,)):
            if len(self.graph.values[name].spec.shape) == 4 and not self.is_slot(name):
                yield name

    def read(self, call: Call, value: str, wanted: Term) -> None:
        if value not in self.terms:  # an input of the graph, or a value that depends on no image
            packed = self.packed_inputs and self.graph.values[value].kind is Kind.INPUT
            self.terms[value] = ((), self.fresh() if packed else _PLAIN)
        if not self.unify(self.terms[value], wanted):
            self.conversions.append(Conversion(call.name, value, wanted))

    def final(self, term: Term) -> Layout | None:
        blocks, variable = self.resolve(term)
        return blocks if variable in self.fixed and variable != _PLAIN else None

    def unprofitable(self) -> frozenset[str]:
        regions: dict[str, set[int]] = {}  # call that works in blocks -> variables of its images
        profitable: set[int] = set()
        for call in self.graph.calls.values():
            layer = call.layer
            if isinstance(layer, Layer) and call.kind in _RUNS and in_blocks(layer):
                images = [n for n in flatten(call.ports().values()) if n in self.terms]
                regions[call.name] = {self.resolve(self.terms[name])[1] for name in images}
                if any(block != (1, 1) for block in chain(*(layer.layouts or {}).values())):
                    profitable |= regions[call.name]
        for conversion in self.conversions:
            value = self.terms[conversion.value]
            moves = self.final(value) or self.final(conversion.wanted)
            if moves and self.graph.values[conversion.value].kind is not Kind.INPUT:
                profitable -= {self.resolve(value)[1], self.resolve(conversion.wanted)[1]}
        return frozenset(name for name, region in regions.items() if not region <= profitable)

    def rewrite(self) -> Graph:
        values = dict(self.graph.values)
        for name, term in self.terms.items():
            if (stack := self.final(term)) is not None:
                value = values[name]
                spec = replace(value.spec, shape=blocked_shape(value.spec.shape, stack))
                values[name] = replace(value, spec=spec, layout=stack)
        wanted = {(c.call, c.value): self.final(c.wanted) for c in self.conversions}
        calls: dict[str, Call] = {}
        for call in self.graph.calls.values():
            names = {
                name: self.convert(name, wanted[call.name, name], calls, values)
                for name in flatten(call.args)
                if (call.name, name) in wanted
            }
            if isinstance(call.layer, Layer) and call.kind in _RUNS:
                bound = {port: renamed(arg, names) for port, arg in bound_arguments(call).items()}
                call = self.run(call, bound, values)
            calls[call.name] = call
        outputs = tuple(self.convert(name, None, calls, values) for name in self.graph.outputs)
        return replace(self.graph, calls=calls, values=values, outputs=outputs)

    def run(self, call: Call, bound: Mapping[str, Arg], values: dict[str, Value]) -> Call:
        """The call on blocked arguments. Raises LayerError if it does not return the layouts it declares."""
        stated = {name: values[name].spec for name in call.makes() if name in self.terms}
        call = rewire(call, bound, values)
        for name, spec in stated.items():
            if values[name].spec.shape != spec.shape:
                raise LayerError(
                    f"{at(call)}forward returns {values[name].spec}, but the layouts it declares make "
                    f"{name!r} {spec}"
                )
        return call

    def convert(
        self, name: str, wanted: Layout | None, calls: dict[str, Call], values: dict[str, Value]
    ) -> str:
        """The value in this layout: itself, or the result of a conversion, which is added only once."""
        value = values[name]
        if value.layout == wanted:
            return name
        form = "nchw" if wanted is None else "".join(f"{h}x{w}." for h, w in wanted) + "nhwc"
        made, result = f"{name}:{form}", f"{name}:{form}.y"
        if made not in calls:
            values[result] = Value(
                result, value.spec, Kind.LAYER, layout=wanted, node=made, port="y", of=name
            )
            call = Call(
                name=made,
                kind=Kind.LAYER,
                layer=Convert(source=value.layout, target=wanted),
                method="forward",
                args=(name,),
                results=(result,),
                title="convert",
                node=made,
            )
            calls[made] = rewire(call, {"x": name}, values)
        return result
