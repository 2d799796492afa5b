"""Rematerialize: evict storages between two of their uses, and run clones that compute them again.

The calls of a graph are kept in a list, `line`, in the order in which they run; a clone comes directly before
the use of its results. Sums and updates are not in `line`: they run as early as they can, as in
`Graph.order`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

from graphnet.graph import (
    SLOTS,
    SOON,
    SOURCES,
    Call,
    Graph,
    Item,
    Kind,
    Overwrites,
    Slot,
    Storages,
    flat,
    item,
    renamed,
)
from graphnet.passes.eviction import Eviction, Inserted
from graphnet.passes.run_order import RunOrder, run_order, with_clones
from graphnet.sdk import Exchange

_MOST_CLONES = 200  # in one eviction
_MOST_UNDONE = 300
_TINY = 8  # an input this many times smaller than the evicted storage is kept, not computed again
_ONCE = (Kind.UPDATE, Kind.WAIT)  # the kinds of calls that run once in a step


class Rematerialization:
    """A graph with evictions: `evict` and `undo_needless` change it, `graph` returns the result."""

    def __init__(
        self, graph: Graph, seconds: Callable[[Call], float], overwrites: Overwrites
    ) -> None:
        self.original = graph
        self.storages = Storages(graph.values, graph.outputs)
        order = graph.order()
        self.places = {call.name: _places(call, overwrites(call)) for call in order}
        self.line = [self.item(call) for call in order if call.kind not in SOON]
        self.soon = [self.item(call) for call in order if call.kind in SOON]
        self.seconds = {call.name: seconds(call) for call in order}
        self.roots: dict[str, str] = {}  # clone -> the value of the original graph
        self.versions: dict[str, list[str]] = {}  # value of the original graph -> all its clones
        self.made: list[Inserted] = []
        self.unshared: set[str] = set()  # the values cloned since the peak last fell
        self.count = 0
        used = {name for call in order for name in call.reads()} | {*graph.inputs, *graph.targets}
        self.fixed_bytes = sum(
            value.spec.size_bytes
            for name, value in graph.values.items()
            if value.kind in SOURCES and (name in used or value.kind in SLOTS)
        )
        self.sources = {
            number
            for name, number in self.storages.number.items()
            if graph.values[name].kind in SOURCES
        }
        self.slots = {
            number
            for name, number in self.storages.number.items()
            if graph.values[name].kind in SLOTS
        }
        self.updated = {
            self.storages.number[target]
            for call in order
            if call.kind is Kind.UPDATE
            for target in call.writes.values()
        }
        self.now = self.run_order()
        self.least = self.now.peak(self.storages, self.sources)

    def copy(self) -> Rematerialization:
        """A copy that can be changed independently."""
        other = copy.copy(self)
        other.storages = self.storages.copy()
        other.line, other.soon, other.made = [*self.line], [*self.soon], [*self.made]
        other.seconds, other.roots = {**self.seconds}, {**self.roots}
        other.unshared = {*self.unshared}
        other.versions = {root: [*clones] for root, clones in self.versions.items()}
        return other

    def item(self, call: Call) -> Item:
        results, reads = list(flat(call.results)), list(call.reads())
        places = self.places[call.repeats or call.name]
        pairs = tuple((str(results[result]), reads[read]) for result, read in places)
        return item(call, self.storages, pairs)

    @property
    def total_seconds(self) -> float:
        """The time of the original calls."""
        return sum(self.seconds[name] for name in self.original.calls)

    @property
    def extra_seconds(self) -> float:
        """The time of the clones."""
        return sum(one.seconds for one in self.made)

    @property
    def peak_bytes(self) -> int:
        return max(self.now.lifetimes.memory, default=self.fixed_bytes)

    def run_order(self) -> RunOrder:
        return run_order(
            self.line, self.soon, self.storages, self.slots, fixed_bytes=self.fixed_bytes
        )

    # Choosing.

    def cheapest(self, gap_weight: float, most_seconds: float) -> Eviction | None:
        """The eviction at the peak with the lowest seconds / (bytes * gap ** gap_weight), or None."""
        memory, last = self.now.lifetimes.memory, self.now.lifetimes.last
        at = memory.index(max(memory))
        best: tuple[float, Eviction] | None = None
        for storage, uses in self.now.uses.items():
            size = self.storages.sizes[storage]
            if not uses[0] < at < last[storage] or not size:
                continue
            if storage in self.storages.kept or storage in self.updated or at in uses:
                continue
            until = next(position for position in uses if position > at)
            gap = until - max(position for position in uses if position < at)
            found = self.closure(storage, until)
            if found is None or found[0].seconds > most_seconds:
                continue
            eviction, gained = found
            score = (eviction.seconds + 1e-12) / (gained * gap**gap_weight)
            if best is None or score < best[0]:
                best = score, eviction
        return best[1] if best else None

    def closure(self, storage: int, until: int) -> tuple[Eviction, int] | None:
        """The calls that compute a storage again before `until`, and the bytes that this saves."""
        now, number = self.now, self.storages.number
        values = self.read_later(storage, until)
        pending, chosen, stand_ins = list(values), dict[int, None](), dict[str, str]()
        gained = self.storages.sizes[storage]
        stretched: set[int] = set()
        while pending:
            wanted = pending.pop()
            position = now.makers[wanted]
            maker = now.items[position]
            if wanted in maker.call.new_states().values():  # a clone never makes a new state
                return None
            if position in chosen:
                continue
            chosen[position] = None
            once = maker.call.kind in _ONCE or isinstance(maker.call.layer, Exchange)
            if once or len(chosen) > _MOST_CLONES:
                return None
            for name in maker.inputs:
                lives_in = number[name]
                if lives_in == storage:
                    pending.append(name)
                elif lives_in in self.storages.kept or now.lifetimes.last[lives_in] >= until:
                    continue
                elif (version := self.alive_version(name, storage, until)) is not None:
                    stand_ins[name] = version
                elif self.storages.sizes[lives_in] * _TINY <= self.storages.sizes[storage]:
                    if lives_in not in stretched:
                        stretched.add(lives_in)
                        gained -= self.storages.sizes[lives_in]
                else:
                    pending.append(name)
        if gained <= 0:
            return None
        calls = tuple(now.items[position] for position in sorted(chosen))
        seconds = sum(self.seconds[one.call.name] for one in calls)
        return Eviction(storage, until, calls, values, stand_ins, seconds), gained

    def read_later(self, storage: int, until: int) -> tuple[str, ...]:
        """The values in a storage that are made before position `until` and read from there on."""
        found: dict[str, None] = {}
        for position in self.now.uses[storage]:
            if position >= until:
                for name in self.now.items[position].inputs:
                    if self.storages.number[name] == storage and self.now.makers[name] < until:
                        found[name] = None
        return tuple(found)

    def alive_version(self, name: str, storage: int, until: int) -> str | None:
        """A version of the value in another storage that is alive at position `until`, or None."""
        root = self.roots.get(name, name)
        for version in (root, *self.versions.get(root, [])):
            lives_in = self.storages.number[version]
            made = self.now.makers.get(version, until)
            if made < until <= self.now.lifetimes.last[lives_in] and lives_in != storage:
                return version
        return None

    # Changing.

    def evict(self, eviction: Eviction) -> None:
        """Insert clones before the next use; all calls from there on read them."""
        place = self.now.places[eviction.until]
        names = dict(eviction.stand_ins)
        originals: dict[str, str] = {}
        clones = [self.item(self.clone(one.call, names, originals)) for one in eviction.calls]
        later = {old: new for new, old in originals.items() if old in eviction.values}
        positions = {id(one): i for i, one in enumerate(self.now.items)}
        for items in (self.line, self.soon):
            for index, one in enumerate(items):
                if eviction.storage in one.touches and positions[id(one)] >= eviction.until:
                    items[index] = self.reading(one, later)
        self.line[place:place] = clones
        made = frozenset(one.call.name for one in clones)
        self.made.append(Inserted(made, originals, eviction.seconds))
        self.now = self.run_order()
        self.unshared.update(self.roots[name] for name in originals)
        if self.peak_bytes < self.least.size_bytes:
            self.share()
            self.least = self.now.peak(self.storages, self.sources)

    def share(self) -> None:
        """Undo evictions of the values cloned last, where that does not raise the peak.

        This is done only after the peak has fallen, so an eviction and its undoing cannot alternate forever.
        """
        for one in list(self.made):
            if self.unshared & {self.roots[name] for name in one.originals}:
                self.undo(one, self.peak_bytes)
        self.unshared.clear()

    def clone(self, call: Call, names: dict[str, str], originals: dict[str, str]) -> Call:
        """A copy of the call under a new name; adds its results to `names` and `originals`."""
        original = call.repeats or call.name
        self.count += 1
        mark = f":again{self.count}"
        values = self.storages.values
        states = frozenset(call.new_states().values())

        def result(name: str | None) -> str | None:
            if name is None or name in states:  # a clone never makes a new state
                return None
            root = self.roots.get(name, name)
            new = f"{root}{mark}"
            self.roots[new] = root
            self.versions.setdefault(root, []).append(new)
            base = values[name].view_of
            port = self.original.values[root].port
            values[new] = replace(
                values[name],
                name=new,
                view_of=base if base is None else names.get(base, base),
                port=f"{port}{mark}" if port else "",
            )
            originals[new] = name
            names[name] = new
            return new

        def results(slot: Slot) -> Slot:
            return tuple(map(result, slot)) if isinstance(slot, tuple) else result(slot)

        clone = replace(
            call,
            name=f"{original}{mark}",
            args=tuple(renamed(arg, names) for arg in call.args),
            results=tuple(map(results, call.results)),
            after=(),
            repeats=original,
            port=f"{port}{mark}" if (port := self.original.calls[original].port) else "",
        )
        for name in clone.makes():
            self.storages.add(name)
        self.seconds[clone.name] = self.seconds[call.name]
        return clone

    def reading(self, one: Item, names: Mapping[str, str]) -> Item:
        """The item with its inputs renamed; views among its results move to the new storages."""
        values, number = self.storages.values, self.storages.number
        for name in one.call.makes():
            base = values[name].view_of
            if base is not None:
                values[name] = replace(values[name], view_of=names.get(base, base))
                number[name] = number[names.get(base, base)]
        call = one.call
        return self.item(replace(call, args=tuple(renamed(arg, names) for arg in call.args)))

    def undo_needless(self, memory_bytes: int) -> None:
        """Undo evictions, the most expensive first, where the peak fits without them."""
        for one in sorted(self.made, key=lambda one: -one.seconds)[:_MOST_UNDONE]:
            self.undo(one, memory_bytes)

    def undo(self, one: Inserted, memory_bytes: int) -> bool:
        """Replace each clone by an earlier version, if the peak then fits; returns whether it did."""
        instead = {name: self.version_before(name, one) for name in one.originals}
        if not all(self.could_last(*pair, one, memory_bytes) for pair in instead.items()):
            return False
        before = self.line, self.soon, self.storages, self.now
        self.storages = self.storages.copy()
        clones = {self.storages.number[name] for name in instead}
        line = [item for item in self.line if item.call.name not in one.calls]
        self.line = self.restored(line, instead, clones)
        self.soon = self.restored(self.soon, instead, clones)
        self.now = self.run_order()
        if self.peak_bytes > memory_bytes:
            self.line, self.soon, self.storages, self.now = before
            return False
        self.made.remove(one)
        return True

    def could_last(self, name: str, version: str, one: Inserted, memory_bytes: int) -> bool:
        """Whether a version fits into memory until its clone; a quick test before the full sequence."""
        now, number = self.now, self.storages.number
        read = any(
            position > now.makers[name] and now.items[position].call.name not in one.calls
            for position in now.uses[number[name]]
        )
        gap = now.lifetimes.memory[now.lifetimes.last[number[version]] + 1 : now.makers[name]]
        size = self.storages.sizes[number[version]]
        return not read or max(gap, default=0) + size <= memory_bytes

    def version_before(self, name: str, one: Inserted) -> str:
        """The latest version of a clone's value before it, not made by the same eviction."""
        makers = self.now.makers
        root = self.roots[name]
        versions = (root, *(v for v in self.versions[root] if v not in one.originals))
        there = [v for v in versions if makers.get(v, len(self.now.items)) < makers[name]]
        return max(there, key=lambda version: makers[version])

    def restored(
        self, items: list[Item], originals: Mapping[str, str], clones: set[int]
    ) -> list[Item]:
        """The items; those that touch the storages in `clones` read the originals instead."""
        return [
            one if clones.isdisjoint(one.touches) else self.reading(one, originals) for one in items
        ]

    def graph(self) -> Graph:
        """The graph with its clones; each clone runs after the call before it in `line`."""
        return with_clones(self.original, self.line, self.now.items, self.storages)


def _places(call: Call, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[int, int], ...]:
    """The (result, argument) pairs as positions, which are the same for clones."""
    results, reads = list(flat(call.results)), list(call.reads())
    return tuple((results.index(result), reads.index(target)) for result, target in pairs)
