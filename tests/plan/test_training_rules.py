"""The rules of a training step: right graphs keep them, and each planted fault breaks one.

The passes that add the reverse pass and the updates change what is computed, so no comparison with the graph
before can find their faults. Each fault here would train to other weights. `make fuzz` sets
GRAPHNET_FUZZ_FAULTS for 20 times as many faults in random models as the suite plants.
"""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphnet.errors import PlanError
from graphnet.graph import Call, Const, Graph, Kind
from graphnet.model import Model
from graphnet.plan.verify import RULES, verify_training
from graphnet.sdk import Accumulate, Optimizer, Pass, Register, hookimpl, load_registry
from tests.support.models import Acme, random_model
from tests.support.steps import step_graph as random_step

CONV = {"out_channels": 4, "kernel_size": 3, "padding": 1}
NETWORK = {
    "input": {"channels": 4},
    "layers": [
        {"id": "one", "conv2d": CONV},
        {"id": "norm", "batch_norm2d": {}},
        {"id": "bent", "relu": {}},
        {"id": "two", "conv2d": CONV},
        {"id": "sum", "add": {}, "inputs": ["two", "bent", "bent"]},
        {"id": "again", "conv2d": CONV, "share": "one"},
        {"id": "rest", "subtract": {}, "inputs": ["again", "norm"]},
    ],
}
PLANTED = int(os.environ.get("GRAPHNET_FUZZ_FAULTS", "500"))
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "accumulate": {"accumulate": 2},
    "clip and ema": {"clip_grad_norm": 1.0, "ema": 0.9},
    "reference": {"kernels": "reference"},
    "frozen": {"parameters": [{"match": "two.*", "freeze": True}]},
    "report": {"report": ["losses", "gradient_norm"]},
}


class Capture:
    """Keeps the graph that the pass "batch_updates" gets."""

    graph: Graph

    @hookimpl
    def graphnet_passes(self, register: Register) -> None:
        register("acme/capture", Pass(self.run, "", after="update", exact=False))

    def run(self, graph: Graph) -> Graph:
        if optimizers(graph):  # not the plan that only adds up gradients
            Capture.graph = graph
        return graph


@functools.cache
def step_graph(way: str) -> Graph:
    """The graph of a training step after the pass "update"."""
    registry = load_registry(plugins=[Capture()], entry_points=False)
    model = Model(NETWORK, registry=registry)
    optimizer = {"adam": {"lr": 0.1}}
    model.compile((2, 4, 8, 8), loss="mse", optimizer=optimizer, device="cpu", **WAYS[way])
    return Capture.graph


def changed(graph: Graph, call: Call, **changes: Any) -> Graph:
    calls = {name: one for name, one in graph.calls.items() if name != call.name}
    return replace(graph, calls={**calls, call.name: replace(call, **changes)})


def without(graph: Graph, call: Call) -> Graph:
    return replace(graph, calls={n: one for n, one in graph.calls.items() if n != call.name})


def optimizers(graph: Graph) -> list[Call]:
    return [call for call in graph.calls.values() if isinstance(call.layer, Optimizer)]


def reverse(graph: Graph) -> list[Call]:
    return [call for call in graph.calls.values() if call.kind is Kind.BACKWARD]


def an_update_is_missing(graph: Graph) -> Iterator[Graph]:
    for call in optimizers(graph):
        yield without(graph, call)


def a_parameter_is_updated_twice(graph: Graph) -> Iterator[Graph]:
    for call in optimizers(graph):
        other = replace(call, name=f"{call.name}:more")
        yield replace(graph, calls={**graph.calls, other.name: other})


def a_parameter_is_updated_by_the_gradient_of_another(graph: Graph) -> Iterator[Graph]:
    calls = optimizers(graph)
    for call in calls:
        for other in calls:
            if other is not call:
                args = (call.args[0], other.args[1], *call.args[2:])
                yield changed(graph, call, args=args)


def a_parameter_is_updated_by_a_part_of_its_gradient(graph: Graph) -> Iterator[Graph]:
    for call in optimizers(graph):
        made = graph.producers.get(str(call.args[1]))
        if made is not None and isinstance(made.layer, Accumulate):
            for part in made.reads():
                yield changed(graph, call, args=(call.args[0], part, *call.args[2:]))


def a_summand_is_dropped(graph: Graph) -> Iterator[Graph]:
    for call in graph.calls.values():
        parts = tuple(call.reads())
        slots = any(graph.values[name].kind is Kind.STATE for name in parts)
        if call.kind is Kind.ACCUMULATE and len(parts) > 1 and not slots:
            for i in range(len(parts)):
                yield changed(graph, call, args=((*parts[:i], *parts[i + 1 :]),))


def a_summand_is_counted_twice(graph: Graph) -> Iterator[Graph]:
    for call in graph.calls.values():
        parts = tuple(call.reads())
        if call.kind is Kind.ACCUMULATE and len(parts) > 1:
            for part in parts:
                yield changed(graph, call, args=((*parts, part),))


def a_backward_call_is_missing(graph: Graph) -> Iterator[Graph]:
    for call in reverse(graph):
        yield without(graph, call)


def a_result_of_a_backward_call_is_dropped(graph: Graph) -> Iterator[Graph]:
    for call in reverse(graph):
        for i, made in enumerate(call.results):
            if made is not None:
                results = (*call.results[:i], None, *call.results[i + 1 :])
                yield changed(graph, call, results=results)


def a_backward_call_reads_the_gradient_of_another_value(graph: Graph) -> Iterator[Graph]:
    made = {name for call in reverse(graph) for name in call.makes()}
    for call in reverse(graph):
        for i, arg in enumerate(call.args):
            if isinstance(arg, str) and arg in made:
                alike = (n for n in sorted(made) if graph.values[n].spec == graph.values[arg].spec)
                for other in alike:
                    if other != arg and other not in call.makes():
                        args = (*call.args[:i], other, *call.args[i + 1 :])
                        yield changed(graph, call, args=args)


def a_backward_call_reads_another_input(graph: Graph) -> Iterator[Graph]:
    forward = [name for name, value in graph.values.items() if value.kind is Kind.LAYER]
    for call in reverse(graph):
        for i, arg in enumerate(call.args):
            if isinstance(arg, str) and arg in forward:
                for other in forward:
                    same = graph.values[other].spec == graph.values[arg].spec
                    if other != arg and same:
                        args = (*call.args[:i], other, *call.args[i + 1 :])
                        yield changed(graph, call, args=args)


def a_backward_call_belongs_to_another_call(graph: Graph) -> Iterator[Graph]:
    calls = reverse(graph)
    for call in calls:
        for other in calls:
            if other is not call:
                yield changed(graph, call, backward_of=other.backward_of)


def a_backward_call_is_asked_for_less(graph: Graph) -> Iterator[Graph]:
    for call in reverse(graph):
        for i, arg in enumerate(call.args):
            if isinstance(arg, Const) and isinstance(arg.value, frozenset):
                for name in arg.value:
                    args = (*call.args[:i], Const(arg.value - {name}), *call.args[i + 1 :])
                    yield changed(graph, call, args=args)


def a_gradient_is_stated_for_another_parameter(graph: Graph) -> Iterator[Graph]:
    names = list(graph.gradients)
    for first, second in zip(names, [*names[1:], names[0]], strict=True):
        yield replace(graph, gradients={**graph.gradients, first: graph.gradients[second]})


def a_gradient_is_not_stated(graph: Graph) -> Iterator[Graph]:
    for name in graph.gradients:
        yield replace(graph, gradients={n: g for n, g in graph.gradients.items() if n != name})


def a_state_is_not_written(graph: Graph) -> Iterator[Graph]:
    for call in graph.calls.values():
        if call.kind is Kind.UPDATE and call.title == "assign":
            yield without(graph, call)


FAULTS: list[Callable[[Graph], Iterator[Graph]]] = [
    an_update_is_missing,
    a_parameter_is_updated_twice,
    a_parameter_is_updated_by_the_gradient_of_another,
    a_parameter_is_updated_by_a_part_of_its_gradient,
    a_summand_is_dropped,
    a_summand_is_counted_twice,
    a_backward_call_is_missing,
    a_result_of_a_backward_call_is_dropped,
    a_backward_call_reads_the_gradient_of_another_value,
    a_backward_call_reads_another_input,
    a_backward_call_belongs_to_another_call,
    a_backward_call_is_asked_for_less,
    a_gradient_is_stated_for_another_parameter,
    a_gradient_is_not_stated,
    a_state_is_not_written,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_right_graph_keeps_the_rules(way: str) -> None:
    verify_training(step_graph(way), updates=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_planted_fault_is_found(way: str, fault: Callable[[Graph], Iterator[Graph]]) -> None:
    graph = step_graph(way)
    found = [broken_rule(wrong) for wrong in fault(graph)]
    assert "" not in found
    assert found or way != "plain"


def test_every_planted_fault_in_random_models_is_found() -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    planted: Counter[str] = Counter()
    seed = 0
    while planted.total() < PLANTED:
        draw = random.Random(seed)
        description = random_model(draw.randint(2, 9), seed)
        kernels = draw.choice(["auto", "aten", "reference"])
        graph = random_step(description, registry, kernels=kernels)
        verify_training(graph, updates=True)  # a right graph is accepted
        for fault in FAULTS:
            wrong = list(fault(graph))
            for one in draw.sample(wrong, min(3, len(wrong))):
                assert broken_rule(one), (seed, fault.__name__)
                planted[fault.__name__] += 1
        seed += 1
    assert min(planted[fault.__name__] for fault in FAULTS) > PLANTED / 1000


def broken_rule(graph: Graph) -> str:
    """The rule that a graph breaks; an empty text if it is accepted."""
    try:
        verify_training(graph, updates=True)
    except PlanError as error:
        (sentence,) = (rule.sentence for rule in RULES if rule.sentence in str(error))
        return sentence
    return ""


def test_the_rules_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    stated = [" ".join(one.split()) for one in page.partition("## Plans")[2].split("\n- ")[1:]]
    assert [one.partition(".")[0] for one in stated] == [rule.sentence for rule in RULES]


def test_a_wrong_pass_that_is_not_exact_is_refused_by_its_name() -> None:
    class Wrong:
        @hookimpl
        def graphnet_passes(self, register: Register) -> None:
            def drop(graph: Graph) -> Graph:
                return next(an_update_is_missing(graph))

            register("acme/drop", Pass(drop, "", after="update", exact=False))

    model = Model(NETWORK, registry=load_registry(plugins=[Wrong()], entry_points=False))
    message = "pass 'acme/drop' of Wrong .* makes a wrong graph: .*has a gradient, and 0 updates"
    with pytest.raises(PlanError, match=message):
        model.compile((2, 4, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
