"""Replay: run a plan on abstract storages that hold value numbers, and reject it if a check fails.

The replay checks that each read finds the value that the graph states, that values share storage only as
declared views or writes, that no overwritten value is read later, that each slot is written once, and that
every other value is freed. The graph itself is checked call by call: the results of a layer agree with the
table of values, and a recomputed call computes the same as its original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from graphnet.errors import PlanError
from graphnet.graph import SLOTS, SOURCES, Call, Const, Graph, Kind, Value, flat, flatten
from graphnet.plan.plan import Plan
from graphnet.plan.verify.calls import disagreement
from graphnet.plan.verify.storages import storages
from graphnet.plan.verify.value_numbering import ValueNumbers
from graphnet.plan.verify.waits import check_names, missing_waits
from graphnet.sdk import Cast, Exchange, Layer, Spec, Wait

_OUTLIVES = SOURCES | {Kind.UPDATE}  # what an update writes is in its slot


def verify(graph: Graph, plan: Plan) -> None:
    """Raise PlanError, which names the step, unless `plan` computes what `graph` states."""
    if graph.prelude is not None and plan.prelude is not None:
        verify(graph.prelude, plan.prelude)
    _preludes(graph, plan)
    numbers = ValueNumbers().of(graph)
    _calls(graph, graph.calls.values(), numbers)
    _Replay(graph, plan, numbers).run()
    if missing := missing_waits(graph):
        raise PlanError(f"plan rejected: {next(iter(missing.values()))}")


def _preludes(graph: Graph, plan: Plan) -> None:
    """Check that the prelude makes what the plan takes from it, and reads weights only."""
    asked = [(name, plan.values[name].spec) for name in plan.of(Kind.PRELUDE)]
    made = []
    if graph.prelude is not None and plan.prelude is not None:
        made = [(name, plan.prelude.values[name].spec) for name in plan.prelude.outputs]
        for name in plan.prelude.arguments:
            if name in plan.inputs or name not in plan.values:
                raise PlanError(f"plan rejected: the prelude takes {name!r}, which is no weight")
    if asked != made:
        raise PlanError(
            f"plan rejected: the prelude makes {_named(made)}, but the plan takes {_named(asked)} from it"
        )


def _named(values: Sequence[tuple[str, Spec]]) -> str:
    return ", ".join(f"{name} ({spec})" for name, spec in values) or "nothing"


def verify_graph(graph: Graph, *, since: Graph | None = None) -> None:
    """Raise PlanError unless each call of the graph agrees with its arguments and results.

    A backward call must read the values of its forward call, or roundings of them. A recomputed call must
    compute the same as the call that it repeats, and no new state. Calls that are unchanged since the graph
    `since`, which was checked before, are skipped.
    """
    check_names(graph)
    if graph.prelude is not None and (since is None or graph.prelude is not since.prelude):
        verify_graph(graph.prelude)
    changed = [call for call in graph.calls.values() if not _unchanged(call, graph, since)]
    if changed:
        _calls(graph, changed, ValueNumbers().of(graph))


def _unchanged(call: Call, graph: Graph, since: Graph | None) -> bool:
    if since is None or since.calls.get(call.name) is not call:
        return False
    touched = (*call.reads(), *call.makes())
    return all(graph.values[name] is since.values.get(name) for name in touched)


def _calls(graph: Graph, calls: Iterable[Call], numbers: dict[str, int]) -> None:
    storage = storages(graph.values)
    for call in calls:
        if words := disagreement(call, graph.values, storage):
            raise PlanError(f"plan rejected: {call.name}: {words}")
        if call.repeats:
            _repetition(call, graph, numbers)
        elif call.kind is Kind.BACKWARD:
            _reverse(call, graph, numbers)


def _reverse(call: Call, graph: Graph, numbers: dict[str, int]) -> None:
    forward = graph.calls.get(call.backward_of)
    if forward is None or not isinstance(call.layer, Layer):
        return  # its forward call was equal to another call, which replaced it
    ports = forward.ports()
    for name, arg in zip(call.layer.signature.backward, call.args, strict=True):
        if name in ports:
            narrow = name in call.layer.kept
            mine = [_readings(value, graph, narrow=narrow) for value in flatten((arg,))]
            theirs = list(flatten((ports[name],)))
            if mine and not theirs:  # nobody else reads this result: a repetition may still make it
                theirs = _again(forward, name, graph, numbers)
            if len(mine) != len(theirs) or not all(
                numbers[value] in {numbers[one] for one in readings}
                for readings, value in zip(mine, theirs, strict=True)
            ):
                raise PlanError(
                    f"plan rejected: {call.name} reads another {name!r} than {forward.name!r} did"
                )


def _again(forward: Call, name: str, graph: Graph, numbers: dict[str, int]) -> list[str]:
    """The result with this name of a call that repeats a forward call on the same values."""
    for call in graph.calls.values():
        if call.repeats == forward.name and (found := list(flatten((call.ports()[name],)))):
            return found
    return []


def _numbered(call: Call, numbers: dict[str, int]) -> list[object]:
    """The method of a call, and its arguments by the numbers of their values."""
    args = (arg if isinstance(arg, Const) else [*flatten((arg,))] for arg in call.args)
    return [
        call.method,
        *([numbers[n] for n in arg] if isinstance(arg, list) else arg for arg in args),
    ]


def _readings(name: str, graph: Graph, *, narrow: bool) -> list[str]:
    """The values that a value may replace: itself, and the value of which it is a rounding.

    A rounding is a cast to a narrower dtype and back; with `narrow`, also a cast to a narrower dtype.
    """
    dtype = graph.values[name].spec.dtype
    found = [name]
    there = _cast_of(name, graph)
    if there is not None:
        source = _cast_of(there, graph)
        if source is not None and graph.values[source].spec.dtype == dtype:
            found.append(source)
        if narrow and graph.values[there].spec.dtype.itemsize > dtype.itemsize:
            found.append(there)
    return found


def _cast_of(name: str, graph: Graph) -> str | None:
    """The value of which this one is a cast, or None."""
    made_by = graph.producers.get(name)
    return str(made_by.args[0]) if made_by and isinstance(made_by.layer, Cast) else None


def _repetition(call: Call, graph: Graph, numbers: dict[str, int]) -> None:
    original = graph.calls.get(call.repeats)
    if original is None:
        raise PlanError(
            f"plan rejected: {call.name} repeats {call.repeats!r}, which is not in the graph"
        )
    if call.layer != original.layer or _numbered(call, numbers) != _numbered(original, numbers):
        raise PlanError(
            f"plan rejected: {call.name} computes something else than {call.repeats!r}, which it repeats: "
            f"another layer, or on other values"
        )
    for name, again in zip(flat(original.results), flat(call.results), strict=True):
        if name is not None and again is not None and numbers[name] != numbers[again]:
            raise PlanError(
                f"plan rejected: {call.name} computes something else than {call.repeats!r}, which it "
                f"repeats: {again!r} is another function of the sources than {name!r}"
            )
    states = len(original.layer.updates) if isinstance(original.layer, Layer) else 0
    if isinstance(call.layer, Exchange | Wait):
        raise PlanError(f"plan rejected: {call.name} repeats an exchange between processes")
    moved = call.kind is Kind.UPDATE or call.writes.keys() - set(call.makes())
    forward = call.method == "forward"
    if moved or (forward and any(tuple(flat(call.results))[len(call.results) - states :])):
        raise PlanError(f"plan rejected: {call.name} is recomputed, but makes a new state")


def _set_up(value: Value) -> tuple[object, ...]:
    """What a value is, and how its tensor is made before the first step."""
    return value.kind, value.initializer, value.memory_format, value.role


class _Replay:
    def __init__(self, graph: Graph, plan: Plan, numbers: dict[str, int]) -> None:
        self.graph = graph
        self.plan = plan
        self.position = 0
        self.call: Call | None = None
        self.numbers = numbers
        self.storage = storages(plan.values)  # value -> the storage that the plan states for it
        self.holds: dict[str, set[int]] = {}  # storage -> the numbers of the values it holds now
        self.alive: dict[str, set[str]] = {}  # storage -> the names through which it can be read
        self.assigned: set[str] = set()
        self.written: dict[str, str] = {}  # slot -> the value written into it

    def reject(self, what: str) -> NoReturn:
        where = f"step {self.position} ({self.call.name}): " if self.call else ""
        raise PlanError(f"plan rejected: {where}{what}")

    def run(self) -> None:
        made = set()
        if self.plan.inputs != self.graph.inputs + self.graph.targets:
            self.reject("the inputs are not those of the graph, in their order")
        for name, value in self.plan.values.items():
            stated = self.graph.values.get(name)
            if stated is not None and _set_up(value) != _set_up(stated):
                self.reject(
                    f"{name!r} is of another kind, or set up in another way, than in the graph"
                )
        for name, value in self.plan.values.items():
            if value.kind in SOURCES:
                self.holds[name] = {self.numbers[name]}
                self.alive[name] = {name}
        for position, step in enumerate(self.plan.steps):
            self.position, self.call = position, step.call
            self.matches_graph(step.call)
            if step.call.name in made:
                self.reject("runs twice")
            if missing := [name for name in step.call.after if name not in made]:
                self.reject(f"must run after {missing[0]!r}")
            made.add(step.call.name)
            self.reads(step.call)
            if step.call.kind is Kind.UPDATE:
                self.updates(step.call)
            else:
                self.overwrites(step.call)
                self.results(step.call)
            for name in step.frees:
                self.free(name)
        self.call = None
        self.ends()

    def matches_graph(self, call: Call) -> None:
        stated = self.graph.calls.get(call.name)
        if stated is None:
            self.reject("is not in the graph")
        if (call.args, call.function, call.layer) != (stated.args, stated.function, stated.layer):
            self.reject("has other arguments or another definition than in the graph")
        if (call.results, call.writes) != (stated.results, stated.writes):
            self.reject("has other results than in the graph")

    def reads(self, call: Call) -> None:
        for name in call.reads():
            if name not in self.plan.values:
                self.reject(f"reads {name!r}, which the plan does not know")
            storage = self.storage[name]
            if name not in self.alive.get(storage, ()):
                self.reject(f"reads {name!r}, which is freed or not made yet")
            if self.numbers[name] not in self.holds[storage]:
                self.reject(f"reads {name!r}, but its storage now holds something else")
            mine, stated = self.plan.values[name], self.graph.values[name]
            if (mine.spec, mine.layout) != (stated.spec, stated.layout):
                self.reject(f"reads {name!r} with another spec than in the graph")

    def assign(self, name: str) -> None:
        if name in self.assigned:
            self.reject(f"assigns {name!r} a second time")
        self.assigned.add(name)

    def overwrites(self, call: Call) -> None:
        """Check the writes of an in-place call; the storages that it overwrites then hold nothing."""
        if call.in_place != bool(call.writes):
            self.reject("has writes without in_place, or in_place without writes")
        storages = [self.storage[name] for name in call.reads()]
        for name, target in call.writes.items():
            storage = self.storage[target]
            if name not in call.makes() or not self.declares(call, target):
                self.reject(f"overwrites {target!r}, which its layer does not declare")
            if self.plan.values[storage].kind in SOURCES:
                self.reject(f"overwrites {target!r}, which is stored in {storage!r}, a source")
            if self.plan.values[name].view_of != target:
                self.reject(f"{name!r} does not live in {target!r}, which it overwrites")
            if self.plan.values[name].spec != self.plan.values[target].spec:
                self.reject(f"{name!r} does not fit into {target!r}, which it overwrites")
            if storages.count(storage) != 1:
                self.reject(f"overwrites {target!r} while it reads that storage a second time")
            self.holds[storage] = set()

    def declares(self, call: Call, target: str) -> bool:
        """Whether the layer declares that a result of the call may overwrite the argument `target`."""
        layer = call.layer
        if not isinstance(layer, Layer):
            return False
        named = dict(zip(layer.signature.of(call.method), call.args, strict=True))
        results = layer.outputs + layer.saves
        for result, argument in layer.overwrites.items():
            arg = named.get(argument, Const(None))
            first = arg[0] if isinstance(arg, tuple) and arg else arg
            if (result in results) == (call.method == "forward") and first == target:
                return True
        return False

    def results(self, call: Call) -> None:
        readable = {self.storage[name] for name in call.reads()}
        for name in call.makes():
            self.assign(name)
            storage = self.storage[name]
            if self.plan.values[name].view_of != self.graph.values[name].view_of:
                self.reject(f"{name!r} claims another storage than in the graph")
            if storage != name and storage not in readable:
                self.reject(f"{name!r} claims to view {storage!r}, which this call does not read")
            if storage == name and self.alive.get(storage):
                self.reject(f"{name!r} takes the storage of a value that is still alive")
            readable.add(storage)  # a later result may be a view of this result
            self.holds.setdefault(storage, set()).add(self.numbers[name])
            self.alive.setdefault(storage, set()).add(name)

    def updates(self, call: Call) -> None:
        if set(call.writes) != set(call.makes()):
            self.reject("is an update, but has results that it does not write")
        for name, slot in call.writes.items():
            self.assign(name)
            known = self.graph.values[slot]
            is_slot = known.kind in SLOTS
            if not is_slot and (known.kind in SOURCES or slot not in call.reads()):
                self.reject(
                    f"writes {slot!r}, which is no parameter, no state, and no value that it reads"
                )
            if (self.graph.values[name].kind is Kind.UPDATE) != is_slot:
                self.reject(f"{name!r} is of another kind than {slot!r}, into which it is written")
            if self.storage[name] != slot:
                self.reject(f"{name!r} does not live in {slot!r}")
            if slot in self.written:
                self.reject(f"writes {slot!r} a second time")
            self.written[slot] = name
            self.holds[slot] = {
                self.numbers[name]
            }  # so a read through a view of the old value is found
            self.alive[slot].add(name)

    def free(self, name: str) -> None:
        storage = self.storage[name]
        if name not in self.alive.get(storage, ()):
            self.reject(f"frees {name!r}, which is not alive")
        if self.plan.values[name].kind in _OUTLIVES or name in self.plan.outputs:
            self.reject(f"frees {name!r}, which outlives the run")
        self.alive[storage].discard(name)
        if not self.alive[storage]:
            del self.alive[storage], self.holds[storage]

    def ends(self) -> None:
        if self.plan.outputs != self.graph.outputs:
            self.reject("the outputs are not those of the graph")
        for name in self.plan.outputs:
            storage = self.storage[name]
            if (
                name not in self.alive.get(storage, ())
                or self.numbers[name] not in self.holds[storage]
            ):
                self.reject(f"the output {name!r} is gone at the end")
        for call in self.graph.calls.values():
            for name, slot in call.writes.items():
                if call.kind is Kind.UPDATE and self.written.get(slot) != name:
                    self.reject(f"{slot!r} ends without its update")
        kept = set(self.plan.outputs)
        for names in self.alive.values():
            for name in names:
                if self.plan.values[name].kind not in _OUTLIVES and name not in kept:
                    self.reject(f"{name!r} is never freed")
