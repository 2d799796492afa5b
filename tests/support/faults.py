"""Faults to plant in sound steps, each with words of the reason for which the verifier must reject it.

A fault changes the plan, or the graph that the plan is then made from: a wrong pass, not a wrong schedule.
It returns None where the step has no place for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from graphnet.graph import SOURCES, Call, Graph, Kind
from graphnet.plan import Plan, Step, schedule
from graphnet.sdk import Layer

T = TypeVar("T")
Planted = tuple[Graph, Plan] | None
Plant = Callable[[Graph, Plan, random.Random], Planted]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break a step, and what the verifier must say about it, as a pattern."""

    name: str
    plant: Plant
    says: str


FAULTS: list[Fault] = []


def says(pattern: str) -> Callable[[Plant], Plant]:
    """Register the decorated function as a fault that is rejected in these words."""

    def note(plant: Plant) -> Plant:
        FAULTS.append(Fault(plant.__name__, plant, pattern))
        return plant

    return note


def with_steps(graph: Graph, plan: Plan, steps: list[Step]) -> Planted:
    return graph, replace(plan, steps=tuple(steps))


def with_call(graph: Graph, call: Call) -> Graph:
    return replace(graph, calls={**graph.calls, call.name: call})


def scheduled(graph: Graph) -> Planted:
    return graph, schedule(graph)


def places(plan: Plan) -> dict[str, int]:
    return {step.call.name: i for i, step in enumerate(plan.steps)}


def shuffled(items: Iterable[T], draw: random.Random) -> list[T]:
    """The items in an order drawn at random."""
    found = list(items)
    draw.shuffle(found)
    return found


# Frees and order.


@says("freed or not made yet|is gone at the end|which is not alive")
def early_free(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps, makers = list(plan.steps), places(plan)
    i = draw.choice([i for i, step in enumerate(steps) if step.frees])
    name = draw.choice(steps[i].frees)
    made = makers[graph.producers[name].name]
    if made >= i:
        return None
    j = draw.randrange(made, i)
    steps[i] = replace(steps[i], frees=tuple(n for n in steps[i].frees if n != name))
    steps[j] = replace(steps[j], frees=(*steps[j].frees, name))
    return with_steps(graph, plan, steps)


@says("is never freed")
def never_freed(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.frees])
    steps[i] = replace(steps[i], frees=steps[i].frees[1:])
    return with_steps(graph, plan, steps)


@says("frees .*, which is not alive")
def freed_twice(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps[:-1]) if step.frees])
    steps[-1] = replace(steps[-1], frees=(*steps[-1].frees, steps[i].frees[0]))
    return with_steps(graph, plan, steps)


@says("frees .*, which outlives the run")
def slot_freed(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    steps[-1] = replace(steps[-1], frees=(*steps[-1].frees, draw.choice(plan.slots)))
    return with_steps(graph, plan, steps)


@says("freed or not made yet|must run after")
def wrong_order(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    i = draw.randrange(len(steps) - 1)
    if not set(steps[i].call.makes()) & set(steps[i + 1].call.reads()):
        return None
    steps[i], steps[i + 1] = steps[i + 1], steps[i]
    return with_steps(graph, plan, steps)


@says("freed or not made yet|must run after")
def missing_step(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    steps.pop(draw.choice([i for i, s in enumerate(steps) if s.call.kind is Kind.BACKWARD]))
    return with_steps(graph, plan, steps)


# Updates.


@says("must run after")
def update_before_reader(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    place = places(plan)
    for step in shuffled(plan.steps, draw):
        if step.call.kind is not Kind.UPDATE or not step.call.after:
            continue
        last = max(place[name] for name in step.call.after)
        made = [place[graph.producers[n].name] for n in step.call.reads() if n in graph.producers]
        if max(made) < last:
            steps = [s for s in plan.steps if s is not step]
            steps.insert(last, replace(step, frees=()))
            return with_steps(graph, plan, steps)
    return None


@says("its storage now holds something else")
def clone_after_update(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    """A recomputed call reads a slot that has been updated: the update does not wait for it."""
    for call in shuffled([c for c in graph.calls.values() if c.repeats], draw):
        slots = [name for name in call.reads() if f"{name}:update" in graph.calls]
        for slot in slots:
            update = graph.calls[f"{slot}:update"]
            made = set(plan.values) - set(plan.arguments)  # by then its gradient is not
            hasty = replace(
                update, after=(), args=tuple(slot if a in made else a for a in update.args)
            )
            broken = with_call(graph, hasty)
            steps = [s for s in plan.steps if s.call.name != update.name]
            position = next(i for i, s in enumerate(steps) if s.call.name == call.name)
            others = [s.call for s in steps[position + 1 :] if s.call.name in update.after]
            if not others:
                steps.insert(position, Step(hasty, ()))
                return with_steps(broken, plan, steps)
    return None


@says("ends without its update")
def missing_update(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.call.kind is Kind.UPDATE])
    gone = steps.pop(i)
    steps[i - 1] = replace(steps[i - 1], frees=steps[i - 1].frees + gone.frees)
    return with_steps(graph, plan, steps)


@says("runs twice")
def double_update(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.call.kind is Kind.UPDATE])
    steps.insert(i, Step(steps[i].call, ()))
    return with_steps(graph, plan, steps)


# What stands where.


@says("has other arguments or another definition")
def swapped_arguments(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    steps = list(plan.steps)
    for i in shuffled(range(len(steps)), draw):
        match steps[i].call.args:
            case (str() as first, str() as second, *rest) if first != second:
                call = replace(steps[i].call, args=(second, first, *rest))
                steps[i] = replace(steps[i], call=call)
                return with_steps(graph, plan, steps)
    return None


@says("with another spec than in the graph|does not fit into")
def wrong_spec(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    values = dict(plan.values)
    name = draw.choice([n for s in plan.steps for n in s.call.reads()])
    values[name] = replace(values[name], spec=replace(values[name].spec, shape=(7,)))
    return graph, replace(plan, values=values)


@says(
    "claims another storage than in the graph|its storage now holds|freed or not made|does not live in"
)
def another_storage(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    made = [n for s in plan.steps if s.call.kind is Kind.LAYER for n in s.call.makes()]
    a, b = draw.sample(made, 2)
    if plan.values[b].view_of == a or plan.storage(a) == plan.storage(b):
        return None
    values = {**plan.values, b: replace(plan.values[b], view_of=a)}
    return graph, replace(plan, values=values)


@says("in a storage of its own, the plan says that it is a view|gives it another storage")
def two_values_in_one_storage(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    """The graph itself says that a result lives in the storage of a value that is alive."""
    place = places(plan)
    fresh = [n for n, v in graph.values.items() if v.kind is Kind.LAYER and v.view_of is None]
    a, b = sorted(draw.sample(fresh, 2), key=lambda name: place[graph.producers[name].name])
    if a in graph.producers[b].reads() or graph.producers[a] is graph.producers[b]:
        return None
    values = {**graph.values, b: replace(graph.values[b], view_of=a)}
    return scheduled(replace(graph, values=values))


@says("as a view of .*, the plan gives it another storage")
def view_without_base(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    """A view that does not say so would outlive its base."""
    views = [
        name
        for name, value in graph.values.items()
        if value.view_of is not None and value.kind in (Kind.LAYER, Kind.BACKWARD)
        if name not in graph.producers[name].writes
        and value.view_of in set(graph.producers[name].reads())
    ]
    if not views:
        return None
    name = draw.choice(views)
    values = {**graph.values, name: replace(graph.values[name], view_of=None)}
    return scheduled(replace(graph, values=values))


# Edges.


@says("returns .* as .*, the plan says|refuses|is .*, but its slot is")
def wrong_dtype(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    name = draw.choice([name for call in graph.calls.values() for name in call.makes()])
    spec = replace(graph.values[name].spec, dtype=torch.float16)
    values = {**graph.values, name: replace(graph.values[name], spec=spec)}
    return scheduled(replace(graph, values=values))


@says("in N C H W, but|lies in|have two|of different layouts|in blocks, but|'.' has another layout")
def wrong_layout(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    images = [n for n, v in graph.values.items() if len(v.spec.shape) == 4 and v.kind is Kind.LAYER]
    name = draw.choice(images)
    if graph.producers[name].kind is not Kind.LAYER:
        return None
    values = {**graph.values, name: replace(graph.values[name], layout=((2, 2),))}
    return scheduled(replace(graph, values=values))


@says("refuses|returns .* as .*, the plan says|'specs' says|reads another '.*' than")
def missing_cast(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    """A call reads what a cast should have changed."""
    casts = [c for c in graph.calls.values() if c.title == "cast"]
    repeated = {c.repeats for c in graph.calls.values()} | {
        c.name for c in graph.calls.values() if c.repeats
    }  # a clone and its original would differ first
    for cast in shuffled(casts, draw):
        (source,), (target,) = tuple(cast.reads()), tuple(cast.makes())
        for name in shuffled(graph.readers.get(target, ()), draw):
            reader = graph.calls[name]
            states = any(graph.values[one].kind is Kind.STATE for one in reader.reads())
            if name in repeated or states:  # with a state in float32, a layer may take both dtypes
                continue
            if isinstance(reader.layer, Layer) and target in reader.args:
                args = tuple(source if arg == target else arg for arg in reader.args)
                return scheduled(with_call(graph, replace(reader, args=args)))
    return None


# Recompute.


def clones(graph: Graph, draw: random.Random) -> list[Call]:
    return shuffled([call for call in graph.calls.values() if call.repeats], draw)


@says("computes something else than")
def clone_with_another_key(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    keys = {n: graph.producers[n].layer for n, v in graph.values.items() if v.kind is Kind.KEY}
    for call in clones(graph, draw):
        mine = [name for name in call.reads() if name in keys]
        same = {keys[name] for name in mine}  # a key may be a repetition of another
        others = [name for name, layer in keys.items() if layer not in same]
        if mine and others:
            args = tuple(others[0] if arg == mine[0] else arg for arg in call.args)
            return scheduled(with_call(graph, replace(call, args=args)))
    return None


@says("computes something else than|cycle")
def clone_of_the_updated_state(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    for call in clones(graph, draw):
        for name in call.reads():
            if (
                graph.values[name].kind in (Kind.STATE, Kind.PARAMETER)
                and f"{name}:next" in graph.values
            ):
                args = tuple(f"{name}:next" if arg == name else arg for arg in call.args)
                update = graph.producers[f"{name}:next"]
                after = tuple(n for n in update.after if n != call.name)
                broken = with_call(graph, replace(update, after=after))
                return with_call(broken, replace(call, args=args)), plan
    return None


@says("is recomputed, but makes a new state")
def clone_that_makes_a_state(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    for call in clones(graph, draw):
        original = graph.calls[call.repeats]
        layer = original.layer
        if isinstance(layer, Layer) and layer.updates and call.method == "forward":
            new = f"{call.name}.new"
            state = graph.values[str(original.results[-1])]
            values = {**graph.values, new: replace(state, name=new)}
            again = replace(call, results=(*call.results[:-1], new))
            return scheduled(replace(with_call(graph, again), values=values))
    return None


# In place.


def bold(graph: Graph, call: Call, target: str) -> Planted:
    """The call overwriting an argument, whoever else needs it."""
    (result,) = call.makes()
    values = {**graph.values, result: replace(graph.values[result], view_of=target)}
    writing = replace(call, in_place=True, writes={result: target})
    return scheduled(replace(with_call(graph, writing), values=values))


def overwriting(graph: Graph, draw: random.Random) -> list[tuple[Call, str]]:
    """Pure calls whose layer can overwrite its first argument, with that argument."""
    found = []
    for call in graph.calls.values():
        layer = call.layer
        can = isinstance(layer, Layer) and layer.overwrites.get("y") and call.method == "forward"
        reads = tuple(call.reads())
        if can and call.kind is Kind.LAYER and reads.count(reads[0]) == 1 and not call.repeats:
            found.append((call, reads[0]))
    return shuffled(found, draw)


@says("its storage now holds something else|is gone at the end|that storage a second time")
def in_place_over_live(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    place = places(plan)
    for call, target in overwriting(graph, draw):
        late = any(place[name] > place[call.name] for name in graph.readers[target])
        if graph.values[plan.storage(target)].kind not in SOURCES and late:
            return bold(graph, call, target)
    return None


@says("stored in .*, a source|that storage a second time")
def in_place_over_an_input(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    for call, target in overwriting(graph, draw):
        if graph.values[plan.storage(target)].kind in SOURCES:
            return bold(graph, call, target)
    return None


@says("in_place without writes|as a view of .*, the plan gives it another storage")
def in_place_in_secret(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    for call in shuffled(graph.calls.values(), draw):
        if call.writes and call.kind is not Kind.UPDATE:
            (result,) = call.writes
            values = {**graph.values, result: replace(graph.values[result], view_of=None)}
            silent = replace(call, writes={})
            found = replace(with_call(graph, silent), values=values)
            return found, schedule(found)
    return None


@says("which its layer does not declare|refuses")
def in_place_undeclared(graph: Graph, plan: Plan, draw: random.Random) -> Planted:
    for call in shuffled(graph.calls.values(), draw):
        layer = call.layer
        if (
            isinstance(layer, Layer)
            and not layer.overwrites
            and call.kind is Kind.LAYER
            and len(tuple(call.makes())) == 1
        ):
            return bold(graph, call, next(iter(call.reads())))
    return None
