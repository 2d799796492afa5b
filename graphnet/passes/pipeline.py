"""Pipeline: passes in order, and what each of them changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphnet.errors import InputError
from graphnet.graph import Graph


@dataclass(frozen=True, slots=True)
class Pass:
    """A function from Graph to Graph under the name by which it is switched off.

    `needed` passes cannot be: without them there is no step. `exact` ones leave every output and every
    update the same function of the same values, which is checked each time. One that is not `settled`
    leaves kernels that work in blocks of pixels before their layouts are decided.
    """

    name: str
    summary: str
    run: Callable[[Graph], Graph]
    needed: bool = False
    exact: bool = False
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """What a pass did: calls before and after it, which are new, gone or different; seconds taken."""

    name: str
    summary: str
    before: int
    after: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    switched_off: bool = False


def run(
    graph: Graph,
    passes: Sequence[Pass],
    *,
    without: Iterable[str],
    check: Callable[[Pass, Graph, Graph, Graph | None], None],
) -> tuple[Graph, tuple[Change, ...]]:
    """Send a graph through the passes, less those switched off.

    `check` is given each pass, its graph, its result, and the last result of a settled pass, if any.
    Raises InputError for a pass that cannot be switched off.
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


def _difference(step: Pass, before: Graph, after: Graph, elapsed_s: float) -> Change:
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
