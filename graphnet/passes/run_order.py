"""Run order: in which order the calls of a graph and their clones run, and the memory they take."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphnet.graph import Call, Graph, Item, Kind, Lifetimes, Storages, lifetimes


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest bytes of a run, the call that runs then, and the storages alive, largest first."""

    size_bytes: int
    call: str
    alive: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class RunOrder:
    """The calls in the order in which they run; clones for item i belong at `places[i]` in `line`."""

    items: list[Item]
    places: list[int]
    lifetimes: Lifetimes
    fixed_bytes: int

    @functools.cached_property
    def uses(self) -> Mapping[int, list[int]]:
        """Storage -> the positions of the calls that touch it."""
        found: dict[int, list[int]] = {}
        for position, one in enumerate(self.items):
            for storage in one.touches:
                found.setdefault(storage, []).append(position)
        return found

    @functools.cached_property
    def makers(self) -> Mapping[str, int]:
        """Value -> the position of the call that makes it."""
        return {name: i for i, one in enumerate(self.items) for name in one.results}

    def peak(self, storages: Storages, sources: set[int]) -> Peak:
        """The peak; the storages in `sources` are alive all the time."""
        memory, ends = self.lifetimes.memory, self.lifetimes.end
        if not memory:
            return Peak(self.fixed_bytes, "", ())
        at = memory.index(max(memory))
        alive = [
            (storages.names[storage], storages.sizes[storage])
            for storage, uses in self.uses.items()
            if (storage in sources or uses[0] <= at <= ends[storage])
            and self.lifetimes.root[storage] == storage
        ]
        alive.sort(key=lambda pair: -pair[1])
        return Peak(memory[at], self.items[at].call.name, tuple(alive))


def run_order(
    line: Sequence[Item],
    soon: Sequence[Item],
    storages: Storages,
    slots: set[int],
    *,
    fixed_bytes: int,
) -> RunOrder:
    """All calls in the order of `Graph.order`, with the lifetimes of their storages.

    `line` are the calls and clones in order; `soon` are the sums and updates, which run as early as they
    can; `slots` are the storages of parameters and states; `fixed_bytes` are alive all the time.
    """
    ready: dict[str, int] = {}  # value -> index in `line` after which it exists
    last_read: dict[int, int] = {}  # storage of a slot -> index of its last reader
    for index, one in enumerate(line):
        for name in one.results:
            ready[name] = index
        for storage in one.reads:
            if storage in slots:
                last_read[storage] = index
    waiting: dict[int, list[Item]] = {}
    for one in soon:
        start = -1
        for name in one.inputs:
            start = max(start, ready.get(name, -1))
        if one.call.writes:
            for storage in one.touches:
                start = max(start, last_read.get(storage, -1))
        for name in one.results:
            ready[name] = start
        for storage in one.reads:
            if storage in slots:
                last_read[storage] = max(start, last_read.get(storage, -1))
        waiting.setdefault(start, []).append(one)
    items, places = waiting.get(-1, [])[:], [0] * len(waiting.get(-1, ()))
    for index, one in enumerate(line):
        items.append(one)
        places.append(index)
        for late in waiting.get(index, ()):
            items.append(late)
            places.append(index + 1)
    alive = lifetimes(items, storages, fixed_bytes=fixed_bytes)
    return RunOrder(items, places, alive, fixed_bytes)


def with_clones(
    graph: Graph, line: Sequence[Item], run: Sequence[Item], storages: Storages
) -> Graph:
    """The graph with the calls of `run` in this order; a clone runs after the call before it in `line`."""
    previous = [None, *(one.call.name for one in line)]
    clones = {
        one.call.name: replace(one.call, after=(before,) if before else ())
        for one, before in zip(line, previous, strict=False)
        if one.call.name not in graph.calls
    }
    number = storages.number
    calls: dict[str, Call] = {}
    for one in run:
        call = clones.get(one.call.name, one.call)
        if call.kind is Kind.UPDATE:
            written = {number[slot] for slot in call.writes.values()}
            reading = [i.call.name for i in line if written & set(i.reads)]
            call = replace(call, after=(*call.after, *(name for name in reading if name in clones)))
        calls[call.name] = call
    made = {name for call in calls.values() for name in call.makes()}
    values = {n: value for n, value in storages.values.items() if n in graph.values or n in made}
    result = replace(graph, calls=calls, values=values)
    assert [call.name for call in result.order()] == list(calls), "clones run elsewhere"
    return result
