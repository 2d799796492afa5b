"""Dead values and duplicates: what is dropped, what stays, and the same bits before and after."""

from __future__ import annotations

from typing import Any

import torch

from graphnet.builtin import SGD
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import load_registry
from tests.support.models import Acme

SHAPE = (2, 4, 6, 6)


def plan_of(*layers: Any, without: tuple[str, ...] = (), **options: Any) -> Plan:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    model = Model({"input": {"channels": 4}, "layers": list(layers)}, registry=registry)
    return model.plan(SHAPE, without=("fusion", *without), **options)


def nodes(plan: Plan) -> list[str]:
    return [step.call.name for step in plan.steps]


CONVOLUTION = {"conv2d": {"out_channels": 4, "kernel_size": 1}}


def test_the_same_layer_on_the_same_value_runs_once() -> None:
    twice = ({"id": "a", "relu": {}}, {"id": "b", "relu": {}, "inputs": ["$input"]})
    both = {"add": {}, "inputs": ["a", "b"]}
    assert nodes(plan_of(*twice, both)) == ["a", "add_1"]
    assert nodes(plan_of(*twice, both, without=("common_subexpressions",))) == ["a", "b", "add_1"]


def test_equal_calls_stay_in_a_training_if_they_have_backward_calls() -> None:
    """Later passes and `graphnet gradients` look for the call to which a backward call belongs."""
    layers = [
        {"id": "c", **CONVOLUTION},
        {"id": "a", "sigmoid": {}},
        {"id": "b", "sigmoid": {}, "inputs": ["c"]},
        {"add": {}, "inputs": ["a", "b"]},
        {"id": "equal", "sigmoid": {}, "inputs": ["$input"]},
        {"id": "twin", "sigmoid": {}, "inputs": ["$input"]},
        {"add": {}, "inputs": ["add_1", "equal", "twin"]},
    ]
    plan = plan_of(*layers, loss="mse", optimizer=SGD(lr=0.1), saved_dtype="bfloat16", device="cpu")
    forward = {step.call.name for step in plan.steps if step.call.kind is Kind.LAYER}
    assert {"a", "b", "equal"} <= forward
    assert "twin" not in forward
    assert {call.backward_of for step in plan.steps if (call := step.call).backward_of} <= {
        *forward,
        "@loss",
    }


def test_chains_of_duplicates_collapse_whole() -> None:
    first = [{"id": "a", "relu": {}}, {"id": "aa", "sigmoid": {}, "inputs": ["a"]}]
    again = [
        {"id": "b", "relu": {}, "inputs": ["$input"]},
        {"id": "bb", "sigmoid": {}, "inputs": ["b"]},
    ]
    plan = plan_of(*first, *again, {"add": {}, "inputs": ["aa", "bb"]})
    assert nodes(plan) == ["a", "aa", "add_1"]


def test_layers_with_parameters_of_their_own_stay_apart() -> None:
    plan = plan_of(
        {"id": "a", **CONVOLUTION},
        {"id": "b", **CONVOLUTION, "inputs": ["$input"]},
        {"id": "c", **CONVOLUTION, "inputs": ["$input"], "share": "a"},
        {"add": {}, "inputs": ["a", "b", "c"]},
    )
    assert nodes(plan) == ["a", "b", "add_1"]


def test_random_layers_draw_apart_and_states_are_kept() -> None:
    drawn = [{"id": name, "acme/dropout": {}, "inputs": ["$input"]} for name in "ab"]
    counted = [{"id": name, "acme/center": {}, "inputs": ["$input"]} for name in "cd"]
    both = {"add": {}, "inputs": ["a", "b", "c", "d"]}
    made = nodes(plan_of(*drawn, *counted, {**both, "id": "s"}, CONVOLUTION, loss="mse"))
    assert {"a", "b", "c", "d"} <= set(made)


def two_outputs(idle: Any) -> Model:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    layers = [{"id": "used", **CONVOLUTION}, {"id": "idle", **idle, "inputs": ["$input"]}]
    outputs = ["used", "idle"]
    description = {"input": {"channels": 4}, "layers": layers, "outputs": outputs}
    return Model(description, registry=registry)


def test_a_branch_that_reaches_no_loss_is_not_run() -> None:
    model = two_outputs(CONVOLUTION)
    plan = model.plan(SHAPE, loss={"used": "mse", "idle": None}, optimizer=SGD(lr=0.1))
    assert "idle" not in nodes(plan)
    assert "idle.weight" in plan.slots  # it is saved and loaded with the others
    assert "idle.weight:update" not in nodes(plan)


def test_a_layer_whose_state_moves_runs_though_nobody_reads_it() -> None:
    model = two_outputs({"acme/center": {}})
    plan = model.plan(SHAPE, loss={"used": "mse", "idle": None}, optimizer=SGD(lr=0.1))
    assert {"idle", "idle.mean:update"} <= set(nodes(plan))


def test_training_gives_the_same_bits_without_these_passes() -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    shared = {"id": "c", **CONVOLUTION, "inputs": ["$input"], "share": "a"}
    layers = [
        {"id": "a", **CONVOLUTION},
        {"id": "b", "relu": {}, "inputs": ["a"]},
        shared,
        {"id": "d", "relu": {}, "inputs": ["c"]},
        {"add": {}, "inputs": ["b", "d", "a"]},
        {"id": "e", **CONVOLUTION},
    ]
    model = Model({"input": {"channels": 4}, "layers": layers}, registry=registry)
    x, target = torch.rand(2, *SHAPE)
    ends = []
    for without in ([], ["dead_code", "common_subexpressions"]):
        program = model.compile(
            SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu", without=without
        )
        ends.append([float(program.step(x, target)) for _ in range(3)])
        ends[-1] += [float(weight.double().sum()) for weight in program.weights.values()]
    assert ends[0] == ends[1]
