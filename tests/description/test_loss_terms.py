"""Losses of a training: sums with weights, in the graph and against torch, and how they are stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet.builtin import MSE, SGD
from graphnet.builtin.losses.pixel import L1, Huber
from graphnet.description import LossTerm, loss_terms, losses_for
from graphnet.errors import DescriptionError, InputError, UnknownNameError
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.sdk import Registry, load_registry
from graphnet.training import read_job
from tests.support.models import SEED
from tests.support.oracle import random_tensor


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(entry_points=False)


def test_forms_of_a_loss(registry: Registry) -> None:
    assert loss_terms("mse", registry) == (LossTerm(MSE(), "mse"),)
    assert loss_terms({"huber": {"delta": 0.5}}, registry) == (LossTerm(Huber(delta=0.5), "huber"),)
    assert loss_terms(L1(), registry) == (LossTerm(L1(), "l1"),)
    assert loss_terms({"l1": None, "weight": 2}, registry) == (LossTerm(L1(), "l1", 2.0),)
    both = ["mse", {"l1": {}, "weight": 0.5}]
    expected = (LossTerm(MSE(), "mse"), LossTerm(L1(), "l1", 0.5))
    assert loss_terms(both, registry) == expected
    assert losses_for(both, ["a"], registry) == {"a": expected}
    assert losses_for({"a": None, "b": both}, ["a", "b"], registry) == {"b": expected}
    assert losses_for({"b": both, "a": "mse"}, ["a", "b"], registry) == {
        "b": expected,
        "a": (LossTerm(MSE(), "mse"),),
    }


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        ([], DescriptionError, "expected one loss or more in the list, found none"),
        ([{"mse": {}, "weight": "much"}], DescriptionError, "weight: expected a finite number"),
        ([{"mse": {}, "weight": float("nan")}], DescriptionError, "weight: expected a finite"),
        ([{"mse": {}, "weight": True}], DescriptionError, "weight: expected a finite number"),
        ([{"mse": {}, "l1": {}}], DescriptionError, "expected a name or {name: {field: value}}"),
        ([{"weight": 1.0}], DescriptionError, "expected a name or {name: {field: value}}"),
        (["msee"], UnknownNameError, "unknown loss 'msee'. Did you mean 'mse'?"),
        ([SGD(lr=1.0)], DescriptionError, "expected the name of a loss"),
    ],
)
def test_wrong_forms_are_errors_in_words(
    registry: Registry, form: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        loss_terms(form, registry)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("form", "outputs", "message"),
    [
        ({}, ["y"], "loss: expected a name or {name: {field: value}} with one name, found {}"),
        (
            {"huber": {"delta": -1.0}},
            ["y"],
            "loss.huber.delta: expected greater than 0, found -1.0",
        ),
        (["mse", {"l1": {}, "weight": "much"}], ["y"], "loss[1].weight: expected a finite number"),
        ({"a": None, "b": []}, ["a", "b"], "loss.b: expected one loss or more in the list"),
    ],
)
def test_a_wrong_form_has_its_place(
    registry: Registry, form: Any, outputs: list[str], message: str
) -> None:
    with pytest.raises(DescriptionError) as caught:
        losses_for(form, outputs, registry)
    assert str(caught.value).startswith(message)


def test_a_training_file_says_where_a_loss_of_a_sum_is_wrong(
    registry: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "model: {layers: [relu]}\n"
        "data: {train: nowhere.npz}\n"
        "loss:\n"
        "  - {huber: {delta: -1.0}, weight: many}\n"
        "  - huber: {delta: -1.0}\n"
        "  - smooth\n"
        "optimizer: adam\n"
        "epochs: 1\n"
        "batch_size: 1\n"
    )
    with pytest.raises(DescriptionError) as caught:
        read_job(path, registry=registry)
    found = [str(problem) for problem in caught.value.problems if "loss" in problem.path]
    assert found == [
        f"{path}:4:36: loss[0].weight: expected a finite number, found 'many'",
        f"{path}:5:20: loss[1].huber.delta: expected greater than 0, found -1.0",
        f"{path}:6:5: loss[2]: unknown loss 'smooth'. Known: {', '.join(sorted(registry.losses))}.",
    ]


SHAPE = (4, 3, 8, 8)
SUM: list[Any] = [
    {"mse": {}, "weight": 0.5},
    {"huber": {"delta": 0.2}},
    {"huber": {"delta": 0.1}, "weight": 2},
]


def in_torch(prediction: Tensor, target: Tensor) -> Tensor:
    return (
        0.5 * F.mse_loss(prediction, target)
        + F.huber_loss(prediction, target, delta=0.2)
        + 2 * F.huber_loss(prediction, target, delta=0.1)
    )


def network(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    def pair(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    x = F.conv2d(x, *pair("conv2d_1"), stride=2).relu()
    x = F.conv2d(x, *pair("conv2d_2"), stride=2).relu()
    x = F.conv_transpose2d(x, *pair("upsampling_1"), stride=2).relu()
    return F.conv_transpose2d(x, *pair("upsampling_2"), stride=2).sigmoid()


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("executor", ["eager", "reference"])
def test_steps_on_a_weighted_sum_equal_torch(
    kernels: str, executor: str, device: torch.device
) -> None:
    program = Model(SEED).compile(
        SHAPE, loss=SUM, optimizer=SGD(lr=0.5), device=device, dtype=torch.float64,
        kernels=kernels, executor=executor,
    )  # fmt: skip
    leaves = {n: t.clone().requires_grad_() for n, t in program.weights.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.5)
    for step in range(3):
        x, target = (random_tensor(SHAPE, seed=2 * step + i, device=device) for i in (0, 1))
        optimizer.zero_grad()
        loss = in_torch(network(x, leaves), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found = program.step(x, target)
        assert found.shape == ()
        torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(program.weights[name], leaf.detach(), rtol=1e-11, atol=1e-13)


def test_a_sum_is_its_terms_and_one_node_more() -> None:
    plan = Model(SEED).plan(SHAPE, loss=SUM, kernels="reference")
    calls = {step.call.name: step.call for step in plan.steps if step.call.kind is Kind.LOSS}
    assert list(calls) == ["@loss.mse", "@loss.huber", "@loss.huber_2", "@loss"]
    assert calls["@loss"].args == (tuple(f"{name}.loss" for name in list(calls)[:3]),)
    assert plan.outputs == ("@loss.y",)
    assert plan.inputs == ("$input", "@target")  # one target for all terms
    plain = Model(SEED).plan(SHAPE, loss=["mse"])
    assert plain == Model(SEED).plan(SHAPE, loss="mse")
    assert [s.call.name for s in plain.steps if s.call.kind is Kind.LOSS] == ["@loss"]
    half = Model(SEED).plan(SHAPE, loss={"mse": {}, "weight": 0.5})
    assert [s.call.name for s in half.steps if s.call.kind is Kind.LOSS] == ["@loss.mse", "@loss"]


def test_terms_share_what_they_take_and_add_what_another_does_not() -> None:
    loss = ["l1", {"masked_mse": {}, "weight": 2.0}]
    program = Model(SEED).compile(
        SHAPE, loss=loss, optimizer=SGD(lr=0.0), device="cpu", dtype=torch.float64
    )
    assert program.plan.inputs == ("$input", "@target", "@mask")
    x, target, mask = (random_tensor(SHAPE, seed=seed) for seed in range(3))
    mask = (mask > 0).double()
    y = network(x, program.weights)
    masked = (mask * (y - target)).square().sum() / mask.sum()
    expected = F.l1_loss(y, target) + 2 * masked
    torch.testing.assert_close(program.step(x, target, mask), expected, rtol=1e-12, atol=0)


def test_sums_on_several_outputs_share_one_total() -> None:
    model = Model(
        {
            "input": {"channels": 2},
            "layers": [
                {"id": "a", "conv2d": {"out_channels": 2, "kernel_size": 1}},
                {"id": "b", "sigmoid": {}},
            ],
            "outputs": ["a", "b"],
        }
    )
    losses = {"a": ["l1", {"mse": {}, "weight": 3.0}], "b": "mse"}
    shape = (2, 2, 3, 3)
    program = model.compile(
        shape, loss=losses, optimizer=SGD(lr=0.0), device="cpu", dtype=torch.float64
    )
    names = [s.call.name for s in program.plan.steps if s.call.kind is Kind.LOSS]
    assert sorted(names) == ["@loss", "@loss.a.l1", "@loss.a.mse", "@loss.b"]
    x, first, second = (random_tensor(shape, seed=seed) for seed in range(3))
    a = F.conv2d(x, program.weights["a.weight"], program.weights["a.bias"])
    expected = F.l1_loss(a, first) + 3 * F.mse_loss(a, first) + F.mse_loss(a.sigmoid(), second)
    torch.testing.assert_close(program.step(x, first, second), expected, rtol=1e-13, atol=0)


TWO_OUTPUTS: dict[str, Any] = {
    "input": {"channels": 2},
    "layers": [
        {"id": "a", "conv2d": {"out_channels": 2, "kernel_size": 1}},
        {"id": "b", "conv2d": {"out_channels": 2, "kernel_size": 1}, "inputs": ["$input"]},
    ],
    "outputs": ["a", "b"],
}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mse", r"2 outputs \(a, b\), but 'mse' does not say .* loss={'a': 'mse', 'b': None}"),
        (["mse", "l1"], r"does not say which one it is for"),
        ({"huber": {"delta": 0.5}}, r"does not say which one it is for"),
        ({"c": "mse"}, r"does not say which one it is for"),
        (MSE(), r"does not say which one it is for"),
        ({"a": "mse"}, r"nothing is given for b, .* loss={'a': 'mse', 'b': None}"),
        ({"b": "mse"}, r"nothing is given for a, .* loss={'a': None, 'b': 'mse'}"),
        ({"a": "mse", "bb": "mse"}, r"no output 'bb'\. Known: a, b|Did you mean 'b'"),
        ({"a": None, "b": None}, r"None for a, b; give at least one output a loss"),
    ],
)
def test_every_output_needs_a_loss_or_none(loss: object, message: str) -> None:
    model, shape = Model(TWO_OUTPUTS), (1, 2, 3, 3)
    for make in (model.compile, model.plan):
        with pytest.raises(InputError, match=message):
            make(shape, loss=loss, optimizer=SGD(lr=0.1), device="cpu")


def test_each_output_is_trained_by_its_own_loss_if_any() -> None:
    model, shape = Model(TWO_OUTPUTS), (1, 2, 3, 3)
    x, first, second = (random_tensor(shape, seed=s, dtype=torch.float32) for s in range(3))
    for losses, targets in (
        ({"a": "mse", "b": "l1"}, (first, second)),
        ({"a": None, "b": "l1"}, (second,)),
    ):
        program = model.compile(shape, loss=losses, optimizer=SGD(lr=0.1), device="cpu")
        before = {name: weight.clone() for name, weight in program.weights.items()}
        y = F.conv2d(x, before["b.weight"], before["b.bias"])
        expected = F.l1_loss(y, second)
        if losses["a"]:
            expected = expected + F.mse_loss(
                F.conv2d(x, before["a.weight"], before["a.bias"]), first
            )
        torch.testing.assert_close(program.step(x, *targets), expected)
        changed = {n for n, weight in program.weights.items() if not torch.equal(weight, before[n])}
        assert changed == {
            f"{o}.{p}" for o, loss in losses.items() if loss for p in ("weight", "bias")
        }


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"memory": "90%"}])
def test_a_sum_takes_part_in_precision_and_memory(options: dict[str, Any]) -> None:
    x, target = (random_tensor(SHAPE, seed=seed, dtype=torch.float32) for seed in (0, 1))
    found = []
    for given in ({}, options):
        program = Model(SEED).compile(SHAPE, loss=SUM, optimizer=SGD(lr=0.1), device="cpu", **given)
        program.step(x, target)
        found.append(program.step(x, target))
    torch.testing.assert_close(*found, rtol=2e-3, atol=0)


def test_targets_come_in_the_order_of_the_outputs(registry: Registry) -> None:
    form = {"noise": "l1", "clean": "mse"}
    assert list(losses_for(form, ["clean", "noise"], registry)) == ["clean", "noise"]
