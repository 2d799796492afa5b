"""Verify: replay a plan on abstract storages that hold terms, and reject it unless it must be right.

A value's term is (definition, method, constants, result index, terms of the arguments), computed from
the graph alone. The replay checks that every read finds the term it should, that storage is shared
only as a declared view or write, that each slot is written once, and that nothing leaks. This module
shares no code with the planner.
"""

from __future__ import annotations

from typing import NoReturn

from graphnet.errors import PlanError
from graphnet.graph import SLOTS, SOURCES, Call, Const, Graph, Kind
from graphnet.plan import Plan


def verify(graph: Graph, plan: Plan) -> None:
    """Raise PlanError, which names the step, unless running `plan` computes what `graph` says."""
    _Replay(graph, plan).run()


class _Replay:
    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.position = 0
        self.call: Call | None = None
        self.table: dict[object, int] = {}
        self.terms: dict[str, int] = {}
        self.holds: dict[str, set[int]] = {}  # storage -> the terms it holds now
        self.alive: dict[str, set[str]] = {}  # storage -> the names through which it can be read
        self.assigned: set[str] = set()
        self.written: dict[str, str] = {}  # slot -> the value written into it

    def reject(self, what: str) -> NoReturn:
        where = f"step {self.position} ({self.call.name}): " if self.call else ""
        raise PlanError(f"plan rejected: {where}{what}")

    def run(self) -> None:
        made = set()
        for name, value in self.plan.values.items():
            if value.kind in SOURCES:
                self.terms[name] = self.intern(("source", name))
                self.holds[name] = {self.terms[name]}
                self.alive[name] = {name}
        self.define_terms()
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
                self.writes(step.call)
            else:
                self.results(step.call)
            for name in step.frees:
                self.free(name)
        self.call = None
        self.ends()

    def intern(self, term: object) -> int:
        return self.table.setdefault(term, len(self.table))

    def define_terms(self) -> None:
        """The term of every value, from the graph's definition, arguments before results."""
        makers = {name: call for call in self.graph.calls.values() for name in call.makes()}
        for goal in makers:
            pending = [goal]
            while pending:
                name = pending[-1]
                if name in self.terms:
                    pending.pop()
                    continue
                if name not in makers:
                    self.terms[name] = self.intern(("source", name))
                    continue
                call = makers[name]
                missing = [arg for arg in call.reads() if arg not in self.terms]
                if missing:
                    pending.extend(missing)
                    if len(pending) > 4 * len(makers) + len(self.graph.values) + 1000:
                        self.reject("the graph has a cycle")
                    continue
                arguments = tuple(self.argument_term(arg) for arg in call.args)
                for index, result in enumerate(call.makes()):
                    key = (call.layer, call.method, arguments, call.kind, index)
                    self.terms[result] = self.intern(key)

    def argument_term(self, arg: object) -> object:
        match arg:
            case str():
                return self.terms[arg]
            case tuple():
                return tuple(self.terms[name] for name in arg)
            case Const(value=frozenset() | None as value):
                return ("const", value)
            case Const(value=value):
                return ("const", tuple(sorted((str(k), str(v)) for k, v in value.items())))
        raise TypeError(f"unknown argument {arg!r}")

    def storage(self, name: str) -> str:
        """The storage that the plan claims for a value."""
        seen = 0
        while (base := self.plan.values[name].view_of) is not None:
            name, seen = base, seen + 1
            if seen > len(self.plan.values):
                self.reject(f"{name!r} is a view of itself")
        return name

    def matches_graph(self, call: Call) -> None:
        stated = self.graph.calls.get(call.name)
        if stated is None:
            self.reject("is not in the graph")
        if (call.args, call.method, call.layer) != (stated.args, stated.method, stated.layer):
            self.reject("has other arguments or another definition than in the graph")
        if (call.results, call.writes) != (stated.results, stated.writes):
            self.reject("has other results than in the graph")

    def reads(self, call: Call) -> None:
        for name in call.reads():
            if name not in self.plan.values:
                self.reject(f"reads {name!r}, which the plan does not know")
            storage = self.storage(name)
            if name not in self.alive.get(storage, ()):
                self.reject(f"reads {name!r}, which is freed or not made yet")
            if self.terms[name] not in self.holds[storage]:
                self.reject(f"reads {name!r}, but its storage now holds something else")
            if self.plan.values[name].spec != self.graph.values[name].spec:
                self.reject(f"reads {name!r} with another spec than in the graph")

    def assign(self, name: str) -> None:
        if name in self.assigned:
            self.reject(f"assigns {name!r} a second time")
        self.assigned.add(name)

    def results(self, call: Call) -> None:
        if call.writes:
            self.reject("writes a slot, but is not an update")
        readable = {self.storage(name) for name in call.reads()}
        for name in call.makes():
            self.assign(name)
            storage = self.storage(name)
            if self.plan.values[name].view_of != self.graph.values[name].view_of:
                self.reject(f"{name!r} claims another storage than in the graph")
            if storage != name and storage not in readable:
                self.reject(f"{name!r} claims to view {storage!r}, which this call does not read")
            if storage == name and self.alive.get(storage):
                self.reject(f"{name!r} takes the storage of a value that is still alive")
            self.holds.setdefault(storage, set()).add(self.terms[name])
            self.alive.setdefault(storage, set()).add(name)

    def writes(self, call: Call) -> None:
        if set(call.writes) != set(call.makes()):
            self.reject("is an update, but has results that it does not write")
        for name, slot in call.writes.items():
            self.assign(name)
            if self.graph.values[slot].kind not in SLOTS:
                self.reject(f"writes {slot!r}, which is no parameter or state")
            if self.storage(name) != slot:
                self.reject(f"{name!r} does not live in {slot!r}")
            if slot in self.written:
                self.reject(f"writes {slot!r} a second time")
            self.written[slot] = name
            self.holds[slot] = {self.terms[name]}  # views of the old value see the new one: stale

    def free(self, name: str) -> None:
        storage = self.storage(name)
        if name not in self.alive.get(storage, ()):
            self.reject(f"frees {name!r}, which is not alive")
        if self.plan.values[name].kind in SOURCES or name in self.plan.outputs:
            self.reject(f"frees {name!r}, which outlives the run")
        self.alive[storage].discard(name)
        if not self.alive[storage]:
            del self.alive[storage], self.holds[storage]

    def ends(self) -> None:
        if self.plan.outputs != self.graph.outputs:
            self.reject("the outputs are not those of the graph")
        for name in self.plan.outputs:
            storage = self.storage(name)
            if (
                name not in self.alive.get(storage, ())
                or self.terms[name] not in self.holds[storage]
            ):
                self.reject(f"the output {name!r} is gone at the end")
        for call in self.graph.calls.values():
            for name, slot in call.writes.items():
                if self.written.get(slot) != name:
                    self.reject(f"{slot!r} ends without its update")
        kept = set(self.plan.outputs)
        for names in self.alive.values():
            for name in names:
                if self.plan.values[name].kind not in SOURCES and name not in kept:
                    self.reject(f"{name!r} is never freed")
