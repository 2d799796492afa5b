"""graphnet accepts passes of plugins that change a graph, but not what it computes.

Each rewrite of a random model is a pass of a plugin, so all checks run after it. `make fuzz` sets
GRAPHNET_FUZZ_SOUND for ten times as many as the suite makes.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from graphnet.errors import MemoryBudgetError
from graphnet.graph import Call, Graph, Kind, renamed
from graphnet.model import Model
from graphnet.passes import common_subexpressions, dead_code
from graphnet.sdk import Pass, Register, Registry, hookimpl, load_registry
from tests.support.models import Acme, random_model

REWRITES = int(os.environ.get("GRAPHNET_FUZZ_SOUND", "100"))
SHAPE = (2, 4, 4, 4)

Rewrite = Callable[[Graph, random.Random], Graph]
EXACT: dict[str, Rewrite] = {}
ROUNDED: dict[str, Rewrite] = {}


def exact(rewrite: Rewrite) -> Rewrite:
    """Register a rewrite after which each result has the same bits."""
    EXACT[rewrite.__name__] = rewrite
    return rewrite


def rounded(rewrite: Rewrite) -> Rewrite:
    """Register a rewrite that adds up in another order."""
    ROUNDED[rewrite.__name__] = rewrite
    return rewrite


def pure(graph: Graph) -> list[Call]:
    """The calls that write nothing."""
    return [call for call in graph.calls.values() if not call.writes]


def with_args(call: Call, names: Mapping[str, str]) -> Call:
    """The call that reads other values."""
    return replace(call, args=tuple(renamed(arg, names) for arg in call.args))


def copied(graph: Graph, call: Call) -> tuple[Graph, dict[str, str]]:
    """The graph with a second call that computes the same, and the names of its results."""
    names = {name: f"{name}:copy" for name in call.makes()}
    results: Any = tuple(
        tuple(None if one is None else names[one] for one in slot)
        if isinstance(slot, tuple)
        else None
        if slot is None
        else names[slot]
        for slot in call.results
    )
    second = replace(call, name=f"{call.name}:copy", results=results, repeats=call.name)
    read = {graph.values[name].view_of or name for name in call.reads()}
    values = {new: replace(graph.values[old], name=new) for old, new in names.items()}
    calls: dict[str, Call] = {}
    for name, one in graph.calls.items():
        waits = not read.isdisjoint(
            one.writes.values()
        )  # until the slot that the copy reads is read
        calls[name] = replace(one, after=(*one.after, second.name)) if waits else one
        if name == call.name:
            calls[second.name] = second
    return replace(graph, calls=calls, values={**graph.values, **values}), names


def reading(graph: Graph, names: Mapping[str, str], calls: Iterable[Call]) -> Graph:
    """The graph in which these calls read other values, and their views lie in those."""
    changed = {
        call.name: with_args(call, names) for call in calls if not call.name.endswith(":copy")
    }
    values = dict(graph.values)
    for call in changed.values():
        for name in call.makes():
            seen = values[name].view_of
            values[name] = replace(values[name], view_of=names.get(seen, seen) if seen else seen)
    return replace(graph, calls={**graph.calls, **changed}, values=values)


@exact
def in_another_order(graph: Graph, draw: random.Random) -> Graph:
    """The calls stand in another order in which they can run."""
    makers = graph.producers
    waiting = {
        name: {makers[value].name for value in call.reads() if value in makers} | {*call.after}
        for name, call in graph.calls.items()
    }
    calls: dict[str, Call] = {}
    while waiting:
        name = draw.choice([name for name, earlier in waiting.items() if not earlier - {*calls}])
        calls[name] = graph.calls[name]
        del waiting[name]
    return replace(graph, calls=calls)


@exact
def with_another_name_of_a_value(graph: Graph, draw: random.Random) -> Graph:
    old = draw.choice([name for call in pure(graph) for name in call.makes()])
    new = {old: "acme/renamed"}

    def slot(one: Any) -> Any:
        return tuple(map(slot, one)) if isinstance(one, tuple) else new.get(one, one)

    calls = {
        name: replace(with_args(call, new), results=tuple(map(slot, call.results)))
        for name, call in graph.calls.items()
    }
    values = {
        slot(name): replace(value, name=slot(name), view_of=slot(value.view_of))
        for name, value in graph.values.items()
    }
    gradients = {name: slot(gradient) for name, gradient in graph.gradients.items()}
    outputs = tuple(map(slot, graph.outputs))
    return replace(graph, calls=calls, values=values, gradients=gradients, outputs=outputs)


@exact
def with_another_name_of_a_call(graph: Graph, draw: random.Random) -> Graph:
    old = draw.choice([*graph.calls])

    def slot(name: str) -> str:
        return "acme/renamed" if name == old else name

    calls = {
        slot(name): replace(
            call,
            name=slot(name),
            after=tuple(map(slot, call.after)),
            backward_of=slot(call.backward_of),
            repeats=slot(call.repeats),
        )
        for name, call in graph.calls.items()
    }
    return replace(graph, calls=calls)


@exact
def with_a_value_that_nobody_reads(graph: Graph, draw: random.Random) -> Graph:
    return copied(graph, draw.choice(pure(graph)))[0]


@exact
def with_a_value_computed_twice(graph: Graph, draw: random.Random) -> Graph:
    """Some of the readers of a value read a copy of it."""
    graph, names = copied(graph, draw.choice(pure(graph)))
    return reading(graph, names, [call for call in graph.calls.values() if draw.random() < 0.5])


@exact
def with_calls_that_wait_for_more(graph: Graph, draw: random.Random) -> Graph:
    order = [*graph.calls]
    calls = dict(graph.calls)
    for _ in range(3):
        first, second = sorted(draw.sample(range(len(order)), 2))
        call = calls[order[second]]
        calls[call.name] = replace(call, after=(*call.after, order[first]))
    return replace(graph, calls=calls)


@exact
def with_equal_values_computed_once(graph: Graph, draw: random.Random) -> Graph:
    return common_subexpressions(copied(graph, draw.choice(pure(graph)))[0])


@exact
def with_a_copy_in_place_of_a_call(graph: Graph, draw: random.Random) -> Graph:
    graph, names = copied(graph, draw.choice(pure(graph)))
    return dead_code(reading(graph, names, graph.calls.values()))


def sums(graph: Graph, fewest: int) -> list[Call]:
    """The calls that add up at least so many gradients."""
    return [
        call
        for call in pure(graph)
        if call.kind is Kind.ACCUMULATE and len([*call.reads()]) >= fewest
    ]


@rounded
def with_a_sum_in_another_order(graph: Graph, draw: random.Random) -> Graph:
    if not (found := sums(graph, 2)):
        return graph
    call = draw.choice(found)
    parts = [*call.reads()]
    draw.shuffle(parts)
    return replace(graph, calls={**graph.calls, call.name: replace(call, args=(tuple(parts),))})


@rounded
def with_a_sum_of_sums(graph: Graph, draw: random.Random) -> Graph:
    if not (found := sums(graph, 3)):
        return graph
    call = draw.choice(found)
    parts, (result,) = [*call.reads()], [*call.makes()]
    first = replace(
        call, name=f"{call.name}:part", args=(tuple(parts[:2]),), results=(f"{result}:part",)
    )
    last = replace(call, args=((f"{result}:part", *parts[2:]),))
    value = replace(graph.values[result], name=f"{result}:part")
    calls: dict[str, Call] = {}
    for name, one in graph.calls.items():
        if name == call.name:
            calls[first.name] = first
        calls[name] = last if name == call.name else one
    return replace(graph, calls=calls, values={**graph.values, value.name: value})


def with_rewrite(rewrite: Rewrite, seed: int, after: str, changes: Counter[str]) -> Registry:
    """A registry with a plugin that has the rewrite as a pass."""

    class Sound:
        @hookimpl
        def graphnet_passes(self, register: Register) -> None:
            def run(graph: Graph) -> Graph:
                result = rewrite(graph, random.Random(seed))
                changes[rewrite.__name__] += result != graph or [*result.calls] != [*graph.calls]
                return result

            is_exact = rewrite.__name__ in EXACT
            register("acme/sound", Pass(run, "", after=after, exact=is_exact))

    return load_registry(plugins=[Acme(), Sound()], entry_points=False)


def steps(model: Model, **options: Any) -> list[torch.Tensor]:
    """The losses and the weights of two steps."""
    count = len(model.description.inputs)
    program = model.compile(
        *[SHAPE] * count,
        loss="mse",
        optimizer={"adam": {"lr": 0.1}},
        seed=1,
        device="cpu",
        **options,
    )
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.rand(SHAPE, generator=generator) for _ in range(count + 1)]
    losses = [program.step(*tensors).clone() for _ in range(2)]
    return [*losses, *(tensor.clone() for tensor in program.weights.values())]


PLACES = ("update", "dead_code", "common_subexpressions")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
def test_a_sound_pass_of_a_plugin_is_accepted(name: str) -> None:
    rewrite = {**EXACT, **ROUNDED}[name]
    wanted = -(-REWRITES // len([*EXACT, *ROUNDED]))
    changes: Counter[str] = Counter()
    for seed in range(10 * wanted):
        draw = random.Random(seed)
        after = draw.choice(PLACES)
        registry = with_rewrite(rewrite, seed, after, changes)
        model = Model(random_model(draw.randint(2, 9), seed), registry=registry)
        found = steps(model)
        expected = steps(model, without=["acme/sound"])
        for mine, theirs in zip(found, expected, strict=True):
            if name in EXACT:
                assert torch.equal(mine, theirs), (seed, after)
            else:
                torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
        if changes[name] >= wanted:
            return
    pytest.fail(f"{changes[name]} of {wanted} graphs were changed")


def test_a_pass_after_values_are_computed_again_is_accepted() -> None:
    changes: Counter[str] = Counter()
    registry = with_rewrite(with_a_sum_in_another_order, 0, "recompute", changes)
    for seed in range(20):
        model = Model(random_model(9, seed), registry=registry)
        try:
            found = steps(model, memory="98%")
        except MemoryBudgetError:
            continue
        for mine, theirs in zip(found, steps(model, without=["acme/sound"]), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert changes["with_a_sum_in_another_order"] > 5
