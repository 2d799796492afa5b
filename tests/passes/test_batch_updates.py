"""Together: one call for the updates or casts of all parameters, which does what one call each does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.builtin import SGD, Adam, AdamW, Muon, ReLU
from graphnet.builtin.kernels import multi_tensor
from graphnet.errors import ContractError, LayerError, PlanError
from graphnet.graph import Kind
from graphnet.inspection import Gradients, first_nonfinite
from graphnet.inspection.walk import complete
from graphnet.model import Model, Program
from graphnet.sdk import (
    Cast,
    Constant,
    Definition,
    Optimizer,
    ParameterSpec,
    Register,
    Spec,
    Tensors,
    load_registry,
    pack,
)
from tests.support.models import SEED
from tests.support.oracle import random_tensor

SHAPE = (4, 3, 8, 8)
RULES: dict[str, Optimizer] = {
    "sgd": SGD(lr=0.5),
    "momentum": SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": Adam(lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9)),
    "adamw": AdamW(lr=1e-2, weight_decay=0.1),
}


class Ascent(Adam):
    """Derived from a rule that has a kernel, which does not do what it does."""

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        return -grad


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels match on the CPU too."""
    monkeypatch.setattr(multi_tensor, "DEVICES", {"cpu", "cuda"})


def program(rule: Optimizer, **options: Any) -> Program:
    return Model(SEED).compile(SHAPE, loss="mse", optimizer=rule, device="cpu", **options)


def updates(made: Program) -> list[str]:
    return [step.call.name for step in made.plan.steps if step.call.kind is Kind.UPDATE]


def batch(seed: int) -> tuple[Tensor, Tensor]:
    one, other = (random_tensor(SHAPE, seed=seed + i, dtype=torch.float32) for i in (0, 50))
    return one, other


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("executor", ["eager", "reference"])
@pytest.mark.parametrize("name", RULES)
def test_batched_updates_equal_single_updates(name: str, executor: str) -> None:
    mine = program(RULES[name], executor=executor)
    theirs = program(RULES[name], without=["batch_updates"])
    assert len(updates(mine)) == 1
    assert len(updates(theirs)) == len(theirs.weights)
    for seed in range(4):
        losses = [one.step(*batch(seed)) for one in (mine, theirs)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for slot, tensor in {**mine.weights, **mine.optimizer_state}.items():
        expected = {**theirs.weights, **theirs.optimizer_state}[slot]
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("on_cpu")
def test_batched_updates_work_with_ema_lr_scale_and_clipping() -> None:
    options: dict[str, Any] = {
        "ema": 0.9,
        "clip_grad_norm": 1.0,
        "parameters": [{"match": "*.bias", "weight_decay": 0.0}],
    }
    rule = AdamW(lr=1e-2, weight_decay=0.1)
    mine, theirs = program(rule, **options), program(rule, without=["batch_updates"], **options)
    kinds = [name.partition(":")[0] for name in updates(mine)]
    assert sorted(kinds) == ["adamw", "adamw", "ema"]  # with and without decay
    titles = [step.call.title for step in mine.plan.steps]
    assert [title for title in titles if "clip" in title] == ["clip", "clip [aten]"]
    for seed in range(3):
        for one in (mine, theirs):
            one.step(*batch(seed))
    for name, average in mine.averages.items():
        torch.testing.assert_close(average, theirs.averages[name], rtol=1e-5, atol=1e-6)


class Shift(gn.Layer):
    """x + by. by: 0-dim."""

    def parameters(self, specs: Any) -> Any:
        return {"by": ParameterSpec((), Constant(0.5))}

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return x + by

    def backward(self, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y, grad_y.sum()


@pytest.mark.usefixtures("on_cpu")
def test_parameters_without_an_axis_are_gathered_with_the_others() -> None:
    class Plugin:
        @gn.hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/shift", Shift)

    registry = load_registry(plugins=[Plugin()], entry_points=False)
    model = Model({"layers": ["acme/shift", "sigmoid", "acme/shift"]}, registry=registry)
    options: dict[str, Any] = {"optimizer": RULES["adam"], "clip_grad_norm": 0.1, "device": "cpu"}
    mine, theirs = (
        model.compile(SHAPE, loss="mse", without=without, **options)
        for without in ([], ["batch_updates"])
    )
    assert len(updates(mine)) == 1
    for seed in range(3):
        torch.testing.assert_close(*(one.step(*batch(seed)) for one in (mine, theirs)))


@pytest.mark.usefixtures("on_cpu")
def test_gradients_of_small_batches_are_added_up_and_cleared_at_once() -> None:
    mine, theirs = (
        program(RULES["adam"], accumulate=2, without=without) for without in ([], ["batch_updates"])
    )
    assert mine.accumulation.adding is not None
    titles = [step.call.title for step in mine.accumulation.adding.plan.steps]
    assert titles.count("accumulate [aten]") == 1
    assert len(updates(mine)) == 2  # adam, clear
    for seed in range(6):
        for one in (mine, theirs):
            one.step(*batch(seed))
    for name, weight in mine.weights.items():
        torch.testing.assert_close(weight, theirs.weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("on_cpu")
def test_in_bfloat16_weights_are_cast_at_once_and_gradients_by_the_update() -> None:
    options: dict[str, Any] = {"precision": "bfloat16", "kernels": "aten"}
    mine = program(RULES["adam"], **options)
    theirs = program(RULES["adam"], without=["batch_updates"], **options)
    casts = [step.call for step in mine.plan.steps if step.call.title.startswith("cast")]
    assert [call.title for call in casts if call.kind is not Kind.BACKWARD].count(
        "cast [aten]"
    ) == 1
    assert len([call for call in casts if call.kind is Kind.BACKWARD]) < 8
    (adam,) = (step.call for step in mine.plan.steps if step.call.kind is Kind.UPDATE)
    assert {mine.plan.values[name].spec.dtype for name in adam.args[1]} == {torch.bfloat16}
    for seed in range(4):
        losses = [one.step(*batch(seed)) for one in (mine, theirs)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for name, weight in mine.weights.items():
        torch.testing.assert_close(weight, theirs.weights[name], rtol=1e-4, atol=1e-6)


class Scale(gn.Layer):
    """x * factor, in the dtype of x. factor: 1 number."""

    precision = "follow"

    def parameters(self, specs: Any) -> Any:
        return {"factor": ParameterSpec((1,), Constant(1.5))}

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def backward(self, grad_y: Tensor, x: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y * factor, (grad_y * x).sum().reshape(1)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip_grad_norm": 0.1}], ids=str)
def test_gradients_can_be_looked_at_through_gathered_casts(options: dict[str, Any]) -> None:
    """A weight is used twice, and a factor in both dtypes."""

    class Plugin:
        @gn.hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/scale", Scale)

    conv: dict[str, Any] = {"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
    layers: list[Any] = [
        {"id": "a", **conv},
        {"id": "s", "acme/scale": {}},
        {"id": "b", **conv, "share": "a"},
        "sigmoid",
        {"id": "t", "acme/scale": {}, "share": "s"},
    ]
    registry = load_registry(plugins=[Plugin()], entry_points=False)
    model = Model({"input": {"channels": 3}, "layers": layers}, registry=registry)
    seen = []
    for without in ([], ["batch_updates"]):
        made = model.compile(
            SHAPE,
            loss="mse",
            optimizer=RULES["adam"],
            device="cpu",
            precision="bfloat16",
            kernels="aten",
            without=without,
            **options,
        )
        made.step(*batch(0))
        seen.append(Gradients(made.next_plan, made.arguments(*batch(1))).parameters)
    assert {row.name for row in seen[0]} == {"a.weight", "a.bias", "s.factor"}
    for mine, theirs in zip(*seen, strict=True):
        assert (mine.name, mine.shape) == (theirs.name, theirs.shape)
        assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=0.02)


@pytest.mark.usefixtures("on_cpu")
def test_overflow_names_its_parameter() -> None:
    rule = SGD(lr=1.0, weight_decay=1.0)
    plan = Model(SEED).plan(SHAPE, loss="mse", optimizer=rule, device="cpu")
    given: dict[str, Tensor] = dict(zip(("$input", "@target"), batch(0), strict=True))
    plain = {name: pack(tensor, plan.values[name].layout or ()) for name, tensor in given.items()}
    tensors = complete(plan, {**plain, "@lr": torch.tensor(1e10)})
    tensors["conv2d_2.bias"][:] = -1e30  # behind it all is 0, but for its own decay
    found = first_nonfinite(plan, tensors)
    assert found is not None
    assert "node 'conv2d_2' (sgd [aten], from graphnet-framework" in str(found)
    assert found.value == "conv2d_2.bias"
    assert set(found.inputs or ()) == {"conv2d_2.bias", "relu_2.grad_bias", "@lr", "@step"}


def test_on_a_cpu_updates_stay_apart() -> None:
    assert len(updates(program(RULES["adam"]))) == 8


@pytest.mark.usefixtures("on_cpu")
def test_rules_and_dtypes_without_a_kernel_stay_apart() -> None:
    assert len(updates(program(Muon(lr=0.1)))) == 4 + 1  # weights apart, biases by adamw
    assert len(updates(program(Ascent(lr=0.1)))) == 8
    assert len(updates(program(SGD(lr=0.1, momentum=0.9, dampening=0.5)))) == 8
    assert len(updates(program(RULES["adam"], dtype=torch.float64))) == 8
    assert len(updates(program(RULES["adam"], kernels="reference"))) == 8


class Sign(Optimizer):
    """p -= lr sign(g)."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> None:
        parameter.sub_(lr * grad.sign())


class ManySigns(gn.MultiTensorKernel):
    """Sign for many parameters, in float32."""

    replaces = Sign

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> ManySigns | None:
        return cls(rule=rule) if specs[0].dtype == torch.float32 else None

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor) -> None:
        torch._foreach_sub_(parameters, torch._foreach_mul(torch._foreach_sign(grads), lr))


class Installed:
    """A plugin with an optimizer and a kernel for it."""

    kernel: Any = ManySigns

    @gn.hookimpl
    def graphnet_optimizers(self, register: Register) -> None:
        register("acme/sign", Sign)

    @gn.hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        register("acme/sign", self.kernel)


def test_a_plugin_brings_a_kernel_for_its_own_rule() -> None:
    registry = load_registry(plugins=[Installed()], entry_points=False)
    model = Model(SEED, registry=registry)
    programs = [
        model.compile(SHAPE, loss="mse", optimizer=Sign(lr=0.1), device="cpu", kernels=kernels)
        for kernels in ("acme", "reference")
    ]
    titles = [step.call.title for step in programs[0].plan.steps]
    assert titles.count("sign [acme]") == 1
    assert len(updates(programs[1])) == 8
    for one in programs:
        one.step(*batch(0))
    for name, weight in programs[0].weights.items():
        assert torch.equal(weight, programs[1].weights[name])


class Broken(ManySigns):
    """Its match fails."""

    replaces = Sign

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> ManySigns | None:
        raise KeyError("acme")


def test_a_kernel_whose_match_fails_is_named() -> None:
    plugin = Installed()
    plugin.kernel = Broken
    model = Model(SEED, registry=load_registry(plugins=[plugin], entry_points=False))
    with pytest.raises(LayerError, match=r"kernel 'acme/sign': match failed: KeyError: 'acme'"):
        model.compile(SHAPE, loss="mse", optimizer=Sign(lr=0.1), device="cpu")


class ByHand(ManySigns):
    """Looks at numbers from Python."""

    replaces = Sign

    def run(self, parameters: Tensors, grads: Tensors, lr: Tensor) -> None:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.sub_(float(lr) * grad.sign())


class Forgetting(gn.MultiTensorKernel):
    """Casts all parameters but the last."""

    replaces = Cast
    rule: Cast

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> gn.MultiTensorKernel | None:
        return cls(rule=rule)

    def run(self, xs: Tensors) -> Tensors:
        return tuple(x.bfloat16() for x in xs[:-1])


class Agreeing(ManySigns):
    """Says yes, and no more."""

    replaces = Sign

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Any:
        return True


def test_match_returns_a_kernel() -> None:
    plugin = Installed()
    plugin.kernel = Agreeing
    model = Model(SEED, registry=load_registry(plugins=[plugin], entry_points=False))
    with pytest.raises(
        ContractError, match=r"'acme/sign': Agreeing.match must return cls\(rule=rule\)"
    ):
        model.compile(SHAPE, loss="mse", optimizer=Sign(lr=0.1), device="cpu")


def test_kernels_that_do_not_fit_their_calls_are_refused_when_the_plan_is_made() -> None:
    plugin = Installed()
    plugin.kernel = ByHand
    model = Model(SEED, registry=load_registry(plugins=[plugin], entry_points=False))
    with pytest.raises(PlanError, match=r"sign \[acme\]: run refuses .* and 11 more: RuntimeError"):
        model.compile(SHAPE, loss="mse", optimizer=Sign(lr=0.1), device="cpu")
    plugin.kernel = Forgetting
    model = Model(SEED, registry=load_registry(plugins=[plugin], entry_points=False))
    with pytest.raises(PlanError, match="run returns 7 results, not 8"):
        model.compile(SHAPE, loss="mse", optimizer=Sign(lr=0.1), device="cpu", precision="bfloat16")


def test_multi_tensor_kernel_replaces_a_rule_and_takes_its_arguments() -> None:
    def made(run: object = ManySigns.run, replaces: object = Sign) -> Any:
        return type("Wrong", (gn.MultiTensorKernel,), {"replaces": replaces, "run": run})

    for replaces in ("sgd", ReLU):
        with pytest.raises(
            ContractError, match=r"Wrong.replaces must be the class of an optimizer"
        ):
            made(replaces=replaces)
    for run in (lambda self, parameters, grads: None, lambda self, parameters, lr, grads: None):
        with pytest.raises(
            ContractError, match=r"run must take \(parameters, grads, lr\), as what"
        ):
            made(run)
    with pytest.raises(ContractError, match="Wrong defines no run"):
        made(gn.MultiTensorKernel.run)
    plugin = Installed()
    plugin.kernel = type("Silent", (gn.MultiTensorKernel,), {})
    with pytest.raises(ContractError, match=r"\(Silent\) defines no replaces"):
        load_registry(plugins=[plugin], entry_points=False)


@pytest.mark.usefixtures("on_cpu")
def test_the_plan_runs_as_a_file_and_is_verified() -> None:
    made = program(RULES["adam"])
    text = gn.source(made.plan)
    assert "adam.run" in text
    namespace: dict[str, Any] = {"__name__": "plan"}
    exec(compile(text, "plan.py", "exec"), namespace)
    arguments = made.arguments(*batch(0))
    copies = {name: tensor.clone() for name, tensor in arguments.items()}
    (loss,) = namespace["step"](*copies.values())
    assert torch.equal(loss, made.step(*batch(0)))
    for name, weight in made.weights.items():
        assert torch.equal(copies[name], weight)
