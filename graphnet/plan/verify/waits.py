"""Waits: a call that overwrites a storage waits for the calls that read what the storage held before.

The order of a plan can be right by chance while the graph does not demand it: then the next pass, or the
next plan of the same graph, may read an overwritten value.
"""

from __future__ import annotations

from graphnet.errors import PlanError
from graphnet.graph import Call, Graph
from graphnet.plan.verify.storages import storages


def check_names(graph: Graph) -> None:
    """Raise PlanError unless each call and value is stored under its own name."""
    for name, call in graph.calls.items():
        if call.name != name:
            raise PlanError(
                f"plan rejected: the call {call.name!r} is stored under the name {name!r}"
            )
    for name, value in graph.values.items():
        if value.name != name:
            raise PlanError(
                f"plan rejected: the value {value.name!r} is stored under the name {name!r}"
            )


def missing_waits(graph: Graph) -> dict[tuple[str, str], str]:
    """The (writer, reader) pairs of calls in which the writer must wait for the reader, but does not.

    A writer has to wait for the readers of what it overwrites: what the storage held since the write before.
    Readers of the earlier contents run before that earlier write.

    Returns:
        The pairs, each with a text for the error. Between the passes that add updates, some waits are still
        missing.
    """
    found: dict[tuple[str, str], str] = {}
    writers = [call for call in graph.calls.values() if call.writes]
    written = {new for call in writers for new in call.writes}
    # Value -> the written value, or the one with a storage of its own, that it shows.
    content = storages(graph.values, written=written) if writers else {}
    shown: dict[str, list[str]] = {}  # the same, the other way round
    for name, one in content.items():
        shown.setdefault(one, []).append(name)
    for call in writers:
        waits = set(call.after)
        earlier: set[str] | None = None  # the calls that must run before this one
        for target in call.writes.values():
            readers = (graph.readers.get(name, ()) for name in shown[content[target]])
            for reader in dict.fromkeys(one for names in readers for one in names):
                if reader == call.name or reader in waits:
                    continue
                earlier = _before(call, graph) if earlier is None else earlier
                if reader not in earlier:
                    found[call.name, reader] = (
                        f"{call.name} overwrites {target!r}, but does not wait for {reader!r}, which reads it"
                    )
    return found


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
