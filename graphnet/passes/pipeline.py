"""Pipeline: run passes in order, and record what each of them changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphnet.errors import InputError
from graphnet.graph import Graph
from graphnet.sdk import Pass


@dataclass(frozen=True, slots=True)
class Change:
    """What a pass changed: the number of calls before and after it, their names, and its time."""

    name: str
    summary: str
    before: int
    after: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    switched_off: bool = False

    @property
    def has_effect(self) -> bool:
        """Whether the pass changed any call."""
        return bool(self.added or self.removed or self.changed)


def run(
    graph: Graph,
    passes: Sequence[Pass[Graph]],
    *,
    without: Iterable[str],
    check: Callable[[Pass[Graph], Graph, Graph, Graph | None], None],
) -> tuple[Graph, tuple[Change, ...]]:
    """Run the passes on a graph in order; returns the last graph and a Change for each pass.

    `without` names the passes to leave out. `check` is called with each pass, its graph, its result, and
    the last result of a settled pass or None.

    Raises InputError if `without` names a pass that is needed.
    """
    off = frozenset(without)
    if refused := [step.name for step in passes if step.needed and step.name in off]:
        raise InputError(f"the pass {refused[0]!r} cannot be switched off: a plan needs it")
    changes: list[Change] = []
    settled: Graph | None = None
    for step in passes:
        if step.name in off:
            count = len(graph.calls)
            changes.append(Change(step.name, step.summary, count, count, switched_off=True))
            continue
        started = time.perf_counter()
        result = step.run(graph)
        check(step, graph, result, settled)
        settled = result if step.settled else settled
        changes.append(_difference(step, graph, result, time.perf_counter() - started))
        graph = result
    return graph, tuple(changes)


def _difference(step: Pass[Graph], before: Graph, after: Graph, elapsed_s: float) -> Change:
    old, new = before.calls, after.calls
    return Change(
        name=step.name,
        summary=step.summary,
        before=len(old),
        after=len(new),
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        elapsed_s=elapsed_s,
    )
