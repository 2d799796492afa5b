"""Random models through every pass: each plan is accepted and computes the same; broken ones are not.

`make fuzz` sets GRAPHNET_FUZZ_MODELS for ten times as many models as the suite takes, and
GRAPHNET_FUZZ_FAULTS for 20 times as many faults.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter

import pytest
import torch

from graphnet.errors import MemoryBudgetError, PlanError
from graphnet.executors import Inductor
from graphnet.graph import Graph, Kind
from graphnet.passes import in_place
from graphnet.plan import Plan, schedule, verify
from graphnet.plan.verify import verify_rewrite
from graphnet.sdk import Registry, load_registry
from tests.support.faults import FAULTS, Fault
from tests.support.models import Acme, random_model
from tests.support.steps import recomputed, run, run_by, step_graph

MODELS = int(os.environ.get("GRAPHNET_FUZZ_MODELS", "200"))
CHUNK = 50  # models in one test
COMPILED = MODELS // 50
PLANTED = int(os.environ.get("GRAPHNET_FUZZ_FAULTS", "500"))  # in 40 steps


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def within(graph: Graph, share: float) -> Graph:
    """The graph recomputed into a share of its peak, or as near to it as can be."""
    whole = schedule(in_place(graph)).peak_bytes
    for more in (0.0, 0.05, 0.1, 0.2):
        try:
            return recomputed(graph, int((share + more) * whole)).graph
        except MemoryBudgetError:
            continue
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, MODELS, CHUNK))
def test_random_models_run_eagerly_as_the_reference_executor_runs_them(
    registry: Registry, start: int
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(start, start + CHUNK):
        draw = random.Random(seed)
        kernels = draw.choice(["auto", "aten", "reference"])
        graph = step_graph(random_model(draw.randint(2, 9), seed), registry, kernels=kernels)
        small = within(graph, draw.uniform(0.75, 1.0))
        expected = run(schedule(graph), "reference")
        for name, tensor in run(schedule(small), "eager").items():  # clones change no bit
            assert torch.equal(tensor, expected[name]), (seed, name)
        final = in_place(small)
        plan = schedule(final)
        verify_rewrite(graph, final)
        verify(final, plan)
        reference, eager = run(plan, "reference"), run(plan, "eager")
        for name, tensor in expected.items():
            assert torch.equal(eager[name], reference[name]), (seed, name)
            torch.testing.assert_close(eager[name], tensor, rtol=1e-9, atol=1e-12)
        seen["recomputed"] += any(call.repeats for call in final.calls.values())
        seen["in place"] += any(
            call.writes and call.kind is not Kind.UPDATE for call in final.calls.values()
        )
    assert min(seen["recomputed"], seen["in place"]) > CHUNK / 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_random_models_run_compiled_within_the_dtypes_tolerance(registry: Registry) -> None:
    for seed in range(COMPILED):
        graph = step_graph(random_model(2, seed), registry, dtype=torch.float32)
        plan = schedule(in_place(within(graph, 0.9)))
        expected, found = run(plan, "reference"), run_by(Inductor().prepare(plan), plan)
        for name, tensor in expected.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{seed} {name}"
            )


def sound(registry: Registry, seed: int) -> tuple[Graph, Plan]:
    """A step with clones, calls that work in place and casts."""
    description = random_model(10, seed)
    graph = step_graph(description, registry, dtype=torch.float32, compute="bfloat16")
    final = in_place(within(graph, 0.8))
    return final, schedule(final)


@pytest.fixture(scope="module")
def steps(registry: Registry) -> list[tuple[Graph, Plan]]:
    return [sound(registry, seed) for seed in range(40)]


def test_sound_steps_are_accepted(steps: list[tuple[Graph, Plan]]) -> None:
    for graph, plan in steps:
        verify(graph, plan)


RARE = {"update_before_reader": 4, "clone_that_makes_a_state": 4}  # few steps have a place for them
EACH = -(-(PLANTED - sum(RARE.values())) // (len(FAULTS) - len(RARE)))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_rejected_for_its_own_reason(
    steps: list[tuple[Graph, Plan]], fault: Fault
) -> None:
    wanted, found = RARE.get(fault.name, EACH), 0
    for seed in range(20 * EACH):
        broken = fault.plant(*steps[seed % len(steps)], random.Random(seed))
        if broken is None:
            continue
        with pytest.raises(PlanError) as caught:
            verify(*broken)
        message = str(caught.value)
        assert re.search(f"plan rejected: .*({fault.says})", message), message
        found += 1
        if found == wanted:
            break
    assert found == wanted
