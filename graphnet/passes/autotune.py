"""Autotune: choose kernels by measuring them on the graph's own shapes.

Each kernel that matches some calls is timed against these calls: forward and, for training, backward. The
kernels that work in blocks of pixels are compared together with the best plan in N C H W. The slower kernels
are added to `Graph.refused`, and the passes fusion and select_kernels do not use them. The kernel that was
registered first stays, unless another one is faster by more than the noise of the measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from graphnet.graph import Graph
from graphnet.passes.block_layout import in_blocks
from graphnet.passes.substitute import Candidate, candidates, plain_calls, substitute
from graphnet.sdk import Definition, Entry, Registry

_MARGIN = 0.95  # another kernel is chosen if it takes less than this share of the default's time

Seconds = Callable[[Candidate], float]


def autotune(
    graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry, seconds: Seconds
) -> Graph:
    """Add the slower kernels to the graph's `refused`; `seconds` measures the time of a candidate."""
    found = list(candidates(graph, kernels=kernels, registry=registry))
    timed = {one: seconds(one) for one in found}
    blocks = frozenset((one.root, one.entry) for one in found if in_blocks(one.layer))
    slower = _slower({one: s for one, s in timed.items() if (one.root, one.entry) not in blocks})
    with_blocks = replace(graph, refused=slower)
    without = replace(graph, refused=slower | blocks)
    if not blocks:
        return without
    of_call: dict[tuple[str, Definition], float] = {
        (one.root, one.layer): s for one, s in timed.items()
    }

    def total(variant: Graph) -> float:
        plain = plain_calls(variant, kernels=kernels, registry=registry)
        placed = substitute(variant, kernels=kernels, registry=registry, plain=plain)
        parts = [of_call.get((name, call.layer), 0.0) for name, call in placed.calls.items()]
        return sum(parts)

    return with_blocks if total(with_blocks) <= total(without) / _MARGIN else without


def _slower(timed: Mapping[Candidate, float]) -> frozenset[tuple[str, str]]:
    """The (call, kernel) pairs that are slower than another kernel, the layer or the separate calls."""
    at: dict[str, list[Candidate]] = {}
    for one in timed:
        at.setdefault(one.root, []).append(one)
    alone = {root: _best(_of_size(1, found), timed) for root, found in at.items()}
    keep = set(alone.values())
    for found in at.values():
        fused = [one for one in found if len(one.replaced) > 1]
        if fused:
            best = _best(fused, timed)
            apart = sum(timed[alone[name]] for name in best.replaced)
            if timed[best] * _MARGIN <= apart:
                keep.add(best)
    return frozenset((one.root, one.entry) for one in timed if one.entry and one not in keep)


def _of_size(size: int, found: Iterable[Candidate]) -> list[Candidate]:
    return [one for one in found if len(one.replaced) == size]


def _best(found: Sequence[Candidate], timed: Mapping[Candidate, float]) -> Candidate:
    """The first kernel, or the fastest candidate if it is faster by more than the noise."""
    default = next((one for one in found if one.entry), found[0])
    fastest = min(found, key=lambda one: timed[one])
    return fastest if timed[fastest] < _MARGIN * timed[default] else default
