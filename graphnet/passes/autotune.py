"""Autotune: choose kernels by measuring them on the graph's own shapes.

Every kernel that fits somewhere is timed there, forward and, for training, backward, against the calls that
it stands for; a chain of kernels that work in blocks of pixels is compared as a whole with the best plan in
N C H W. What is not the fastest is noted in `Graph.refused`, which the fusion and kernels passes respect.
The order of registration stands unless something else is faster by more than the measurement's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from graphnet.graph import Graph
from graphnet.passes.block_layout import in_blocks
from graphnet.passes.substitute import Candidate, candidates, plain_calls, substitute
from graphnet.sdk import Definition, Entry, Registry

_MARGIN = (
    0.95  # how much of the default's time another kernel may take at most to be chosen instead
)

Seconds = Callable[[Candidate], float]


def autotune(
    graph: Graph, *, kernels: tuple[Entry, ...], registry: Registry, seconds: Seconds
) -> Graph:
    """Note in the graph which kernels are not worth their place; `seconds` times a candidate."""
    found = list(candidates(graph, kernels=kernels, registry=registry))
    timed = {one: seconds(one) for one in found}
    blocks = frozenset((one.root, one.entry) for one in found if in_blocks(one.layer))
    plain = _slower({one: s for one, s in timed.items() if (one.root, one.entry) not in blocks})
    with_blocks = replace(graph, refused=plain)
    without = replace(graph, refused=plain | blocks)
    if not blocks:
        return without
    of_call: dict[tuple[str, Definition], float] = {
        (one.root, one.layer): s for one, s in timed.items()
    }

    def total(variant: Graph) -> float:
        nowhere = plain_calls(variant, kernels=kernels, registry=registry)
        placed = substitute(variant, kernels=kernels, registry=registry, plain=nowhere)
        parts = [of_call.get((name, call.layer), 0.0) for name, call in placed.calls.items()]
        return sum(parts)

    return with_blocks if total(with_blocks) <= total(without) / _MARGIN else without


def _slower(timed: Mapping[Candidate, float]) -> frozenset[tuple[str, str]]:
    """The kernels that lose at their place, against each other, the layer, and the calls one by one."""
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
    """The first kernel, unless another one is faster by more than the noise."""
    default = next((one for one in found if one.entry), found[0])
    fastest = min(found, key=lambda one: timed[one])
    return fastest if timed[fastest] < _MARGIN * timed[default] else default
