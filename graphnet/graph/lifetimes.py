"""Lifetimes: when each storage of a sequence of calls is alive, and the bytes alive at each call.

A storage is alive from the call that makes it to the last call that touches a value in it. If a call may
overwrite a storage and no later call touches it, the storage becomes that of the call's result. This is the
only model of memory: the passes, plans and reports all use it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphnet.graph.cost import call_cost
from graphnet.graph.ir import SOURCES, Call, Value

Overwrites = Callable[[Call], tuple[tuple[str, str], ...]]
"""The results that a call could write into the storage of arguments, as (result, argument)."""


def no_overwrites(call: Call) -> tuple[tuple[str, str], ...]:
    """No pairs: only updates write."""
    return ()


class Storages:
    """The storages of a table of values: a number for each value's storage, and its bytes.

    `kept` are the storages that stay alive after the last call: sources and outputs.
    """

    def __init__(self, values: Mapping[str, Value], outputs: Iterable[str]) -> None:
        self.values = dict(values)
        self.number: dict[str, int] = {}
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.kept: set[int] = set()
        for name in values:
            self.add(name)
        self.kept.update(self.number[name] for name in outputs)

    def add(self, name: str) -> int:
        """The number of a value's storage; a new value gets the storage of its base or a new one."""
        if name not in self.number:
            value = self.values[name]
            if value.view_of is not None:
                self.number[name] = self.add(value.view_of)
            else:
                self.number[name] = len(self.sizes)
                self.names.append(name)
                self.sizes.append(value.spec.size_bytes)
                if value.kind in SOURCES:
                    self.kept.add(self.number[name])
        return self.number[name]

    def copy(self) -> Storages:
        """A copy that can be changed independently."""
        other = copy.copy(self)
        other.values, other.number = dict(self.values), dict(self.number)
        other.names, other.sizes, other.kept = [*self.names], [*self.sizes], {*self.kept}
        return other


@dataclass(frozen=True, slots=True)
class Item:
    """A call in this model of memory.

    `inputs` and `results` are its values. `reads` are the storages of its inputs, once for each use; `makes`
    are its new storages; `touches` are all its storages; `overwrites` are pairs (result, argument) of
    storages. The call needs `work_bytes` of memory beyond its results, and `work_bytes_in_place` if it
    overwrites an argument.
    """

    call: Call
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    touches: tuple[int, ...]
    overwrites: tuple[tuple[int, int], ...]
    work_bytes: int
    work_bytes_in_place: int


def item(call: Call, storages: Storages, overwrites: tuple[tuple[str, str], ...]) -> Item:
    """The item of a call; its values are in `storages`, `overwrites` as `Overwrites` returns them."""
    number = storages.number
    inputs, results = tuple(call.reads()), tuple(call.makes())
    reads = tuple(number[name] for name in inputs)
    made = tuple(number[name] for name in results)
    fresh = (number[name] for name in results if storages.values[name].view_of is None)
    pairs = tuple((number[result], number[target]) for result, target in overwrites)
    touches, makes = tuple(dict.fromkeys((*reads, *made))), tuple(dict.fromkeys(fresh))
    work = in_place = work_bytes(call, storages.values, sum(storages.sizes[one] for one in makes))
    if overwrites:
        results_bytes = sum(storages.sizes[one] for one in {*makes} - {one for one, _ in pairs})
        in_place = work_bytes(replace(call, in_place=True), storages.values, results_bytes)
    return Item(call, inputs, results, reads, makes, touches, pairs, work, in_place)


def work_bytes(call: Call, values: Mapping[str, Value], results_bytes: int) -> int:
    """The most bytes that the tensors made in a call hold beyond its new results."""
    return max(0, call_cost(call, values).peak_bytes - results_bytes)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The bytes alive at each call, and the lifetime of each storage, as positions of calls.

    `memory[i]` are the bytes alive during call i, its own work memory included. `first[s]` is the call that
    makes storage s, or -1 if it exists from the start; `last[s]` is the last call that touches s. `root[s]`
    is the storage that s overwrites, or s; `end` is as `last`, with the storages that overwrite s included.
    """

    memory: list[int]
    first: list[int]
    last: list[int]
    root: list[int]
    end: list[int]


def lifetimes(items: Sequence[Item], storages: Storages, *, fixed_bytes: int) -> Lifetimes:
    """The lifetimes of the storages, if the items run in this order; kept storages outlive the last."""
    first, last = [-1] * len(storages.sizes), [-1] * len(storages.sizes)
    for position, one in enumerate(items):
        for storage in one.touches:
            last[storage] = position
    for storage in storages.kept:
        last[storage] = len(items)
    end, root = list(last), list(range(len(last)))
    change = [0] * (len(items) + 2)
    for position, one in enumerate(items):
        if one.overwrites and _exclusive(one, position, root, end):
            for result, target in one.overwrites:
                root[result] = root[target]
                end[root[target]] = end[result]
    for position, one in enumerate(items):
        for storage in one.makes:
            first[storage] = position
            if root[storage] == storage:
                change[position] += storages.sizes[storage]
                change[end[storage] + 1] -= storages.sizes[storage]
    memory, alive = [], fixed_bytes
    for position, one in enumerate(items):
        alive += change[position]
        overwrites = any(root[result] != result for result, _ in one.overwrites)
        memory.append(alive + (one.work_bytes_in_place if overwrites else one.work_bytes))
    return Lifetimes(memory, first, last, root, end)


def _exclusive(one: Item, position: int, root: list[int], end: list[int]) -> bool:
    """Whether the item reads the storage to overwrite only once, and no later item touches that storage."""
    read = [root[storage] for storage in one.reads]
    targets = [root[target] for _, target in one.overwrites]
    return all(end[target] == position and read.count(target) == 1 for target in targets)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of calls in the order in which they run: storages, items and lifetimes."""

    storages: Storages
    items: tuple[Item, ...]
    lifetimes: Lifetimes


def memory_use(
    calls: Iterable[Call],
    values: Mapping[str, Value],
    outputs: Iterable[str],
    *,
    overwrites: Overwrites = no_overwrites,
    fixed_bytes: int = 0,
) -> MemoryUse:
    """The memory of calls in this order; `fixed_bytes` are alive all the time, such as sources."""
    storages = Storages(values, outputs)
    items = tuple(item(call, storages, overwrites(call)) for call in calls)
    return MemoryUse(storages, items, lifetimes(items, storages, fixed_bytes=fixed_bytes))
