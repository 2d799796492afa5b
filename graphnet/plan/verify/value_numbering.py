"""Value numbering: give equal numbers to values that are the same function of the same sources.

The number of a value stands for (definition, method, kind, position among the results, numbers of the
arguments), or for a source. The values of a prelude have the numbers that they have in the prelude's graph.
A call that works in place has the numbers of the same call without it, and a recomputed call those of the
call that it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphnet.errors import PlanError
from graphnet.graph import SOURCES, Const, Graph, Kind, flat


class ValueNumbers:
    """A table of value numbers, which can serve several graphs."""

    def __init__(self) -> None:
        self.table: dict[object, int] = {}

    def number(self, key: object) -> int:
        return self.table.setdefault(key, len(self.table))

    def of(self, graph: Graph) -> dict[str, int]:
        """Value -> its number. Raises PlanError if there is a cycle or a value that no call makes."""
        makers = {name: call for call in graph.calls.values() for name in call.makes()}
        ahead = {} if graph.prelude is None else self.of(graph.prelude)
        found = {
            name: ahead[name] if value.kind is Kind.PRELUDE else self.number(("source", name))
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
                        found[result] = self.number(key)
        return found


def _argument(arg: object, numbers: Mapping[str, int]) -> object:
    match arg:
        case str():
            return numbers[arg]
        case tuple():
            return tuple(numbers[name] for name in arg)
        case Const(value=Mapping() as specs):
            return ("const", tuple(sorted((str(k), str(v)) for k, v in specs.items())))
        case Const(value=value):
            return ("const", value)
    raise TypeError(f"unknown argument {arg!r}")
