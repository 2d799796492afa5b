"""Waits: a call that overwrites a storage waits for the calls that read what the storage held before.

The order of a plan can be right by chance while the graph does not demand it: then the next pass, or the
next plan of the same graph, may read an overwritten value.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphnet.errors import PlanError
from graphnet.graph import Call, Graph


def check_names(graph: Graph) -> None:
    """Raise PlanError unless each call and value stands under its own name."""
    for name, call in graph.calls.items():
        if call.name != name:
            raise PlanError(f"plan rejected: the call {call.name!r} stands under the name {name!r}")
    for name, value in graph.values.items():
        if value.name != name:
            raise PlanError(
                f"plan rejected: the value {value.name!r} stands under the name {name!r}"
            )


def missing_waits(graph: Graph) -> dict[tuple[str, str], str]:
    """The (writer, reader) pairs of calls of which the writer has to wait for the reader, and does not.

    Returns:
        Each pair with the words for it. Between the passes that add updates, some waits are still missing.
    """
    found: dict[tuple[str, str], str] = {}
    writers = [call for call in graph.calls.values() if call.writes]
    stored: dict[str, list[str]] = {}  # storage -> the values in it
    for name in graph.values if writers else ():
        stored.setdefault(_chain(name, graph)[-1], []).append(name)
    for call in writers:
        earlier: set[str] | None = None  # the calls that must run before this one
        for new, target in call.writes.items():
            for reader in _readers(new, target, stored, graph):
                if reader == call.name or reader in call.after:
                    continue
                earlier = _before(call, graph) if earlier is None else earlier
                if reader not in earlier:
                    found[call.name, reader] = (
                        f"{call.name} overwrites {target!r}, but does not wait for {reader!r}, which reads it"
                    )
    return found


def _chain(name: str, graph: Graph) -> list[str]:
    """A value, the value that it is a view of, and so on, to the value that has the storage."""
    chain = [name]
    while (base := graph.values[chain[-1]].view_of) is not None:
        if base not in graph.values or len(chain) > len(graph.values):
            raise PlanError(f"plan rejected: {name!r} is a view of {base!r}, which has no storage")
        chain.append(base)
    return chain


def _readers(new: str, target: str, stored: dict[str, list[str]], graph: Graph) -> Iterator[str]:
    """The calls that read what the target's storage holds before `new` is written."""
    for name in stored[_chain(target, graph)[-1]]:
        if new not in _chain(name, graph):
            yield from graph.readers.get(name, ())


def _before(call: Call, graph: Graph) -> set[str]:
    """All calls that must run before a call."""
    found: set[str] = set()
    pending = [call.name]
    while pending:
        one = graph.calls[pending.pop()]
        makers = (graph.producers.get(name) for name in one.reads())
        for name in (*one.after, *(maker.name for maker in makers if maker is not None)):
            if name not in graph.calls:
                raise PlanError(f"plan rejected: {one.name} waits for {name!r}, which is no call")
            if name not in found:
                found.add(name)
                pending.append(name)
    return found
