"""Recompute: meet a memory budget by computing values twice instead of keeping them.

Greedy, on the order in which the calls run (as Dynamic Tensor Rematerialization weighs evictions, Kirisame
et al. 2021, but ahead of time): at the peak, among the values alive but unread there, take the one whose
producers take the least seconds for each byte and for the length of the gap that becomes free; give it up
after its last use before the peak, and run clones of its producers right before its next use. Repeat until
the peak fits. Then undo what turned out not to be needed, the dearest first. This is done for several
weights of the gap, and the result with the least added time is taken.

Clones read the same sources: the same random keys, the parameters and states before their updates, which
wait for them. A clone never makes a new state.
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
    """A graph that fits a budget: its predicted peak, and the predicted time that the clones add."""

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

    `seconds` is the predicted time of a call, `overwrites` what the in-place pass will be able to do
    afterwards (`inplace.overwritable`), so that the prediction holds for its result. The clones may at
    most double the time of the step. Raises MemoryBudgetError for a budget that cannot be met.
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
