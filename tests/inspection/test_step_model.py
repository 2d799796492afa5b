"""The step model: exchanges go on beside other calls, until a call waits for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import graphnet as gn
from graphnet.errors import InputError
from graphnet.graph import Network, stated_network
from graphnet.inspection import measure_network, predict_step
from graphnet.model import SINGLE
from graphnet.passes import MicroBatches
from graphnet.plan import Plan
from graphnet.sdk import AllReduce, Exchange, Processes, Wait
from tests.passes.test_data_parallel import SHARDED, SYNCED
from tests.passes.test_micro_batches import plan_of
from tests.support.processes import in_processes

NETWORK = Network("ours", latency_s=1.0, bandwidth=1e15)  # an all-reduce of two takes 2 s
CALL_S = 0.25


def plan(*, bucket_bytes: int = 1 << 20, **options: Any) -> Plan:
    return plan_of(MicroBatches(1, 2), processes=Processes(2, ("all",), bucket_bytes), **options)


def kinds(plan: Plan) -> list[str]:
    names = {AllReduce: "start", Wait: "wait"}
    return [names.get(type(step.call.layer), "call") for step in plan.steps]


def by_hand(plan: Plan, network: Network) -> float:
    """The same by a clock for the calls, and one for the network."""
    clock, busy = 0.0, 0.0
    ends: dict[str, float] = {}
    for kind, step in zip(kinds(plan), plan.steps, strict=True):
        if kind == "start":
            clock += (1 - network.hidden) * 2.0
            busy = max(busy, clock) + 2.0 * network.hidden
            ends[next(step.call.makes())] = busy
        elif kind == "wait":
            clock = max(clock, ends[next(step.call.reads())])
        else:
            clock += CALL_S
    return clock


@pytest.mark.parametrize("hidden", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("bucket_bytes", [100, 1 << 20])
def test_a_step_is_as_long_as_its_calls_and_what_is_waited_for(
    hidden: float, bucket_bytes: int
) -> None:
    made, network = plan(bucket_bytes=bucket_bytes), replace(NETWORK, hidden=hidden)
    found = predict_step(made, lambda call: CALL_S, network)
    exchanges = kinds(made).count("start")
    assert exchanges > (4 if bucket_bytes == 100 else 1)
    assert found.exchanging_s == pytest.approx(2.0 * exchanges)
    assert found.computing_s == pytest.approx(CALL_S * kinds(made).count("call"))
    assert found.seconds == pytest.approx(by_hand(made, network))
    if hidden == 0.0:
        assert found.hidden == pytest.approx(0.0)
        assert found.seconds == pytest.approx(found.computing_s + found.exchanging_s)


def test_buckets_that_are_sent_early_are_hidden() -> None:
    network = replace(NETWORK, latency_s=CALL_S / 4)
    small, large = (
        predict_step(plan(bucket_bytes=size), lambda call: CALL_S, network) for size in (1, 1 << 20)
    )
    assert 0.0 < large.hidden < small.hidden <= 1.0


def test_other_numbers_of_processes_can_be_asked_for() -> None:
    two, many = (
        predict_step(plan(), lambda call: CALL_S, NETWORK, count=count) for count in (2, 1024)
    )
    assert many.exchanging_s == pytest.approx(10 * two.exchanging_s)


def test_explain_shows_exchanges_with_their_time() -> None:
    made = plan(net=SYNCED, updates=SHARDED["adam"])
    text = gn.explain(made, network=NETWORK)
    line = next(one for one in text.splitlines() if "reduce_scatter" in one)
    assert "1.00s" in line.replace(" ", "")
    count = sum(isinstance(step.call.layer, Exchange | Wait) for step in made.steps)
    total = next(one for one in text.splitlines() if one.startswith("exchange "))
    assert total.split()[1] == str(count)
    assert "on ours: 1000000 us a message" in text
    assert str(stated_network(torch.device("cpu"))) in gn.explain(made)


def measured() -> dict[str, torch.Tensor]:
    network = measure_network(gn.join_processes(), torch.device("cpu"))
    return {
        "numbers": torch.tensor([network.latency_s, network.bandwidth, network.hidden]).double()
    }


def test_all_processes_measure_the_same_network() -> None:
    first, second = in_processes(2, measured)
    assert torch.equal(first["numbers"], second["numbers"])
    latency_s, bandwidth, hidden = first["numbers"].tolist()
    assert 1e-7 <= latency_s < 1.0
    assert 1e6 < bandwidth < 1e13
    assert 0.0 <= hidden <= 1.0


def test_a_network_is_not_measured_with_one_process() -> None:
    with pytest.raises(InputError, match="between two processes or more"):
        measure_network(SINGLE, torch.device("cpu"))
