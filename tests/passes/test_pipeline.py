"""The pipeline: passes in order, switched off by name, each looked at after it ran."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphnet.builtin import SGD
from graphnet.description import UpdateSettings, losses_for
from graphnet.errors import InputError, PlanError
from graphnet.graph import Graph
from graphnet.model import Model
from graphnet.passes import MicroBatches, run
from graphnet.plan import CompileOptions, training_plan
from graphnet.plan.verify import verify_rewrite
from graphnet.sdk import PASSES, Pass, Processes
from tests.support.models import SEED

SHAPE = (2, 3, 8, 8)


def names(plan_changes: object) -> list[str]:
    assert isinstance(plan_changes, tuple)
    return [change.name for change in plan_changes]


def test_every_pass_of_every_plan_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path_factory.mktemp("cache")))
    model = Model(SEED)
    training = model.plan(
        SHAPE,
        loss="mse",
        optimizer=SGD(lr=0.1),
        accumulate=2,
        clip_grad_norm=1.0,
        ema=0.9,
        precision="float16",
        saved_dtype="bfloat16",
        memory="100%",
        parameters=[{"match": "*.bias", "freeze": True}],
        report=("losses",),
    )
    together = training_plan(
        model.graph(SHAPE),
        model.registry,
        CompileOptions(device="cpu"),
        losses=losses_for("mse", ("output",), model.registry),
        updates=UpdateSettings(optimizer=SGD(lr=0.1)),
        parts=MicroBatches(2, 4),
        processes=Processes(2, ("all",)),
    )
    plans = training, together, model.plan(SHAPE)
    found = {name for plan in plans for name in names(plan.changes)}
    assert found == set(PASSES)


def test_changes_count_and_name_what_a_pass_did() -> None:
    plan = Model(SEED).plan(SHAPE, loss="mse")
    by_name = {change.name: change for change in plan.changes}
    assert by_name["loss"].added == ("@loss",)
    fusion = by_name["fusion"]
    assert (fusion.before, fusion.after) == (9, 6)  # three pairs of a convolution and relu
    assert fusion.removed == ("conv2d_1", "conv2d_2", "upsampling_1")
    assert fusion.changed == ("relu_1", "relu_2", "relu_3")
    assert all(change.elapsed_s > 0 for change in plan.changes)


def test_a_pass_switched_off_is_told_and_changes_nothing() -> None:
    plan = Model(SEED).plan(SHAPE, loss="mse", without=["fusion"])
    (fusion,) = (change for change in plan.changes if change.name == "fusion")
    assert fusion.switched_off
    assert fusion.before == fusion.after
    assert "conv2d_1" in {step.call.name for step in plan.steps}


def test_required_passes_cannot_be_switched_off() -> None:
    with pytest.raises(InputError, match="the pass 'differentiate' cannot be switched off"):
        Model(SEED).plan(SHAPE, loss="mse", without=["differentiate"])


def test_a_pass_that_changes_what_is_computed_is_refused() -> None:
    graph = Model(SEED).graph(SHAPE)

    def skip(graph: Graph) -> Graph:
        """Say that the network ends one layer earlier."""
        return replace(graph, outputs=("upsampling_2.y",))

    def check(step: Pass[Graph], before: Graph, after: Graph, settled: Graph | None) -> None:
        verify_rewrite(before, after)

    with pytest.raises(
        PlanError, match=r"the output 'upsampling_2.y' does not compute what 'sigmoid_1.y' did"
    ):
        run(graph, [Pass(skip, name="skip")], without=(), check=check)


def test_equal_plans_with_different_pass_times_are_equal() -> None:
    one, other = (Model(SEED).plan(SHAPE, loss="mse") for _ in range(2))
    assert one == other
    assert one.changes[0].elapsed_s != other.changes[0].elapsed_s
