"""Recompute: the budget is met, the prediction is exact, and the step computes the same bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphnet.description import ModelDescription, parse
from graphnet.errors import InputError, MemoryBudgetError, PlanError
from graphnet.graph import Call, Graph, Kind
from graphnet.passes import in_place, recompute
from graphnet.plan import schedule, verify
from graphnet.plan.verify import verify_graph, verify_rewrite
from graphnet.sdk import Registry, load_registry
from graphnet.system import parse_bytes
from tests.support.models import Acme, random_model
from tests.support.steps import one_second, recomputed, run, step_graph


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def chain(length: int, *layers: object) -> ModelDescription:
    conv = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
    return parse({"input": {"channels": 4}, "layers": [conv, *layers] * length})


def peak(graph: Graph) -> int:
    return schedule(in_place(graph)).peak_bytes


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_budget_is_met_and_the_prediction_is_the_plans_peak(
    registry: Registry, share: float
) -> None:
    graph = step_graph(chain(16, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    found = recomputed(graph, int(share * peak(graph)))
    assert found.peak_bytes <= share * peak(graph)
    assert peak(found.graph) == found.peak_bytes
    clones = [call for call in found.graph.calls.values() if call.repeats]
    assert found.extra_seconds == len(clones) > 0


def test_half_the_memory_of_a_chain_costs_less_than_its_forward_pass_again(
    registry: Registry,
) -> None:
    graph = step_graph(chain(40, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)

    def seconds(call: Call) -> float:
        return {"conv2d [aten]": 10.0}.get(call.title, 1.0) * (
            2 if call.method == "backward" else 1
        )

    total = sum(seconds(call) for call in graph.calls.values())
    found = recompute(graph, memory_bytes=schedule(graph).peak_bytes // 2, seconds=seconds)
    assert schedule(found.graph).peak_bytes == found.peak_bytes
    assert found.extra_seconds < 0.25 * total  # one more forward pass would be a third


@pytest.mark.parametrize("seed", range(20))
def test_recomputed_step_gives_the_same_bits(registry: Registry, seed: int) -> None:
    """Clones read the same keys and the old parameters and states: nothing differs."""
    graph = step_graph(random_model(14, seed), registry)
    whole = schedule(graph).peak_bytes
    expected = run(schedule(graph), "reference")
    for share in (0.95, 0.9, 0.85, 0.8):
        try:
            found = recompute(graph, memory_bytes=int(share * whole), seconds=one_second)
        except MemoryBudgetError:
            continue
        verify_rewrite(graph, found.graph)
        plan = schedule(found.graph)
        verify(found.graph, plan)
        assert plan.peak_bytes == found.peak_bytes <= share * whole
        for name, tensor in run(plan, "eager").items():
            assert torch.equal(tensor, expected[name]), name


def test_clone_runs_right_before_its_use(registry: Registry) -> None:
    graph = step_graph(chain(12, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    found = recomputed(graph, int(0.6 * peak(graph)))
    order = list(found.graph.order())
    place = {call.name: i for i, call in enumerate(order)}
    for call in order:
        if call.repeats:
            readers = [place[r] for name in call.makes() for r in found.graph.readers.get(name, ())]
            between = order[place[call.name] + 1 : min(readers)]
            assert all(c.repeats or c.kind in (Kind.UPDATE, Kind.ACCUMULATE) for c in between)


def test_random_layer_draws_the_same_mask_again(registry: Registry) -> None:
    description = chain(6, "relu", {"acme/dropout": {"p": 0.5}})
    graph = step_graph(description, registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    found = recomputed(graph, int(0.75 * peak(graph)))
    again = [c for c in found.graph.calls.values() if c.repeats and "dropout" in c.title]
    assert again
    for call in again:
        keys = [name for name in call.reads() if name.endswith(":key")]
        assert keys == [n for n in graph.calls[call.repeats].reads() if n.endswith(":key")]
    expected, seen = run(schedule(graph), "reference"), run(schedule(found.graph), "eager")
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


def test_clone_of_a_layer_with_state_reads_the_old_state_and_makes_no_new_one(
    registry: Registry,
) -> None:
    description = chain(6, "relu", {"acme/center": {}})
    graph = step_graph(description, registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    found = recomputed(graph, int(0.7 * peak(graph)))
    again = [c for c in found.graph.calls.values() if c.repeats and "center" in c.title]
    assert again
    for call in again:
        assert call.results[-1] is None  # the new mean
        slot = call.args[1]
        assert call.name in found.graph.calls[f"{slot}:update"].after
    expected, seen = run(schedule(graph), "reference"), run(schedule(found.graph), "eager")
    assert all(torch.equal(seen[name], expected[name]) for name in expected)


def test_equal_graphs_give_equal_results(registry: Registry) -> None:
    graphs = [
        step_graph(chain(12, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)
        for _ in range(2)
    ]
    first, second = (recomputed(graph, int(0.6 * peak(graph))) for graph in graphs)
    assert list(first.graph.calls.items()) == list(second.graph.calls.items())
    assert first.extra_seconds == second.extra_seconds


def test_budget_that_fits_already_changes_nothing(registry: Registry) -> None:
    graph = step_graph(chain(4, "relu"), registry)
    found = recomputed(graph, peak(graph))
    assert list(found.graph.calls) == [call.name for call in graph.order()]
    assert found.extra_seconds == 0


def test_impossible_budget_says_the_least_and_what_is_alive_then(registry: Registry) -> None:
    graph = step_graph(chain(6, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    with pytest.raises(MemoryBudgetError) as caught:
        recomputed(graph, 1000)
    message = str(caught.value)
    assert "fit into 1000 B: the least that recomputing reaches is" in message
    assert "parameters and states. At the peak, in '" in message
    assert "KiB" in message.partition("are alive:")[2]


def test_clone_that_means_something_else_is_rejected(registry: Registry) -> None:
    graph = step_graph(chain(8, "relu"), registry, shape=(8, 4, 16, 16), dtype=torch.float32)
    found = recomputed(graph, int(0.7 * peak(graph))).graph
    clone = next(c for c in found.calls.values() if c.repeats and "relu" in c.title)
    other = next(n for n in graph.values if n.endswith(".y") and n not in clone.args)
    wrong = replace(clone, args=(other,))
    broken = replace(found, calls={**found.calls, clone.name: wrong})
    with pytest.raises(PlanError, match="computes something else than"):
        verify_graph(broken)
    with pytest.raises(PlanError, match="no longer updated as it was"):
        verify_rewrite(graph, broken)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("2GiB", 2 * 1024**3),
        ("1.5 MiB", 1536 * 1024),
        ("3kb", 3000),
        ("2 GB", 2 * 10**9),
        ("50%", 500),
        ("100%", 1000),
        ("12.5 %", 125),
    ],
)
def test_amounts_of_memory(text: int | str, expected: int) -> None:
    assert parse_bytes(text, whole=1000) == expected


def test_100_percent_of_any_amount_is_that_amount() -> None:
    assert all(parse_bytes("100%", whole=n) == n for n in range(1, 5000))


@pytest.mark.parametrize("text", ["", "two", "0", "-1GiB", "2 Gi", "1e9", "0%", True])
def test_malformed_amounts_of_memory_are_refused(text: int | str) -> None:
    with pytest.raises(InputError, match="expected an amount of memory such as '2GiB'"):
        parse_bytes(text, whole=1000)
