"""Terms: what each value of a graph means, computed from the graph alone.

A value's term is (definition, method, kind, position among the results, terms of the arguments), down to
the sources; what a prelude computes has the term that it has there. A method that works in place has the
term of its pure twin, and a recomputed call that of the call it repeats: two values are the same function
of the same sources where their terms are equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphnet.errors import PlanError
from graphnet.graph import SOURCES, Const, Graph, Kind, flat


class ValueNumbers:
    """Terms as numbers, equal ones for equal terms; one table can serve several graphs."""

    def __init__(self) -> None:
        self.table: dict[object, int] = {}

    def intern(self, term: object) -> int:
        return self.table.setdefault(term, len(self.table))

    def of(self, graph: Graph) -> dict[str, int]:
        """The term of every value. Raises PlanError for a cycle or a value that nothing makes."""
        makers = {name: call for call in graph.calls.values() for name in call.makes()}
        ahead = {} if graph.prelude is None else self.of(graph.prelude)
        found = {
            name: ahead[name] if value.kind is Kind.PRELUDE else self.intern(("source", name))
            for name, value in graph.values.items()
            if value.kind in SOURCES
        }
        for goal in makers:
            pending, open_calls = [goal], set[str]()
            while pending:
                name = pending[-1]
                if name in found:
                    pending.pop()
                    continue
                if name not in makers:
                    raise PlanError(f"plan rejected: {name!r} is read, but nothing makes it")
                call = makers[name]
                missing = [read for read in call.reads() if read not in found]
                if missing:
                    if call.name in open_calls:
                        raise PlanError(
                            f"plan rejected: the graph has a cycle through {call.name!r}"
                        )
                    open_calls.add(call.name)
                    pending.extend(missing)
                    continue
                open_calls.discard(call.name)
                arguments = tuple(_argument(arg, found) for arg in call.args)
                for position, result in enumerate(flat(call.results)):
                    if result is not None:
                        key = (call.layer, call.method, call.kind, position, arguments)
                        found[result] = self.intern(key)
        return found


def _argument(arg: object, terms: Mapping[str, int]) -> object:
    match arg:
        case str():
            return terms[arg]
        case tuple():
            return tuple(terms[name] for name in arg)
        case Const(value=Mapping() as specs):
            return ("const", tuple(sorted((str(k), str(v)) for k, v in specs.items())))
        case Const(value=value):
            return ("const", value)
    raise TypeError(f"unknown argument {arg!r}")
