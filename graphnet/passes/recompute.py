"""Recompute: meet a memory budget by computing values a second time instead of keeping them.

The search is greedy on the order in which the calls run; the score is that of Dynamic Tensor
Rematerialization (Kirisame et al. 2021), but here it is applied before the run. At the peak, consider the
values that are alive and not read there. Evict the one with the lowest seconds / (bytes * gap ** weight):
free it after its last use before the peak, and run clones of its producers directly before its next use.
Repeat until the peak fits. Then undo the evictions that are not needed, the most expensive first. The search
runs for several weights, and the result with the least added time is taken.

A clone reads the same sources as its original: the same random keys, and parameters and states before
their updates, which wait for it. A clone never makes a new state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphnet.errors import MemoryBudgetError
from graphnet.graph import SLOTS, Call, Graph, Overwrites, aliases, no_overwrites
from graphnet.passes.rematerialize import Rematerialization
from graphnet.system import bytes_text

_GAP_WEIGHTS = (0.5, 0.25, 1.0, 1.5)  # powers of the gap's length in the score of an eviction
_LARGE = 1200  # calls above which only the first weight is tried
_SHOWN = 6  # values that the error names


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A graph that fits a budget, its predicted peak, and the predicted time of the clones."""

    graph: Graph
    peak_bytes: int
    extra_seconds: float


def recompute(
    graph: Graph,
    *,
    memory_bytes: int,
    seconds: Callable[[Call], float],
    overwrites: Overwrites = no_overwrites,
) -> Recomputed:
    """Clone calls of a finished graph (forward, reverse pass and updates) until its peak fits.

    Args:
        memory_bytes: the budget.
        seconds: predicts the time of a call; the clones may at most double the time of the step.
        overwrites: what the pass in_place may overwrite afterwards (`overwritable`), so that the predicted
            peak is that of its result.

    Raises MemoryBudgetError if the budget cannot be met.
    """
    graph = replace(graph, values=aliases(graph).values)
    weights = _GAP_WEIGHTS if len(graph.calls) <= _LARGE else _GAP_WEIGHTS[:1]
    start = Rematerialization(graph, seconds, overwrites)
    tried = [_attempt(start.copy(), memory_bytes, weight) for weight in weights]
    fitting = [one for one in tried if one.peak_bytes <= memory_bytes]
    if not fitting:
        raise _impossible(min(tried, key=lambda one: one.least.size_bytes), memory_bytes)
    best = min(fitting, key=lambda one: one.extra_seconds)
    return Recomputed(best.graph(), best.peak_bytes, best.extra_seconds)


def _attempt(attempt: Rematerialization, memory_bytes: int, gap_weight: float) -> Rematerialization:
    limit = attempt.total_seconds
    for _ in range(4 * len(attempt.original.calls)):
        if attempt.peak_bytes <= memory_bytes:
            attempt.undo_needless(memory_bytes)
            break
        chosen = attempt.cheapest(gap_weight, limit - attempt.extra_seconds)
        if chosen is None:
            break
        attempt.evict(chosen)
    return attempt


def _impossible(attempt: Rematerialization, memory_bytes: int) -> MemoryBudgetError:
    least = attempt.least
    slots = sum(
        value.spec.size_bytes for value in attempt.storages.values.values() if value.kind in SLOTS
    )
    alive = ", ".join(f"{name} {bytes_text(size)}" for name, size in least.alive[:_SHOWN])
    more = len(least.alive) - _SHOWN
    return MemoryBudgetError(
        f"a step cannot be made to fit into {bytes_text(memory_bytes)}: the least that recomputing "
        f"reaches is {bytes_text(least.size_bytes)}, of which {bytes_text(slots)} are parameters and "
        f"states. At the peak, in {least.call!r}, these are alive: {alive}"
        f"{f' and {more} more' if more > 0 else ''}. Allow more memory, or take a smaller batch."
    )
