"""bfloat16 as casts in the graph: which layers compute in it, and what stays in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import Cast, Layer, Precision, Register, hookimpl, load_registry
from tests.support.models import SEED, Acme

SHAPE = (4, 3, 8, 8)
CONVOLUTION = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}


def plan_of(description: Mapping[str, Any], **options: Any) -> Plan:
    registry = load_registry(plugins=[Acme(), Plugin()], entry_points=False)
    model = Model(description, registry=registry)
    return model.plan(SHAPE, precision="bfloat16", **options)


def network(*layers: Any) -> dict[str, Any]:
    return {"input": {"channels": 3}, "layers": list(layers)}


def dtype(plan: Plan, name: str) -> torch.dtype:
    return plan.values[name].spec.dtype


def casts(plan: Plan) -> list[str]:
    return [
        s.call.name
        for s in plan.steps
        if isinstance(s.call.layer, Cast) and s.call.kind is Kind.LAYER
    ]


class Doubled(Layer):
    """2 x; declares nothing about precision."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y * 2


class Followed(Doubled):
    """2 x, in whatever dtype comes."""

    precision: ClassVar[Precision] = "follow"


class Plugin:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("test/doubled", Doubled)
        register("test/followed", Followed)


def test_masters_inputs_outputs_and_loss_stay_in_float32() -> None:
    plan = plan_of(SEED, loss="mse", optimizer=SGD(lr=0.1))
    for name in (*plan.inputs, *plan.slots, *plan.outputs):
        assert dtype(plan, name) is torch.float32, name
    updates = [s.call for s in plan.steps if s.call.kind is Kind.UPDATE]
    assert len(updates) == 8
    for call in updates:
        assert {dtype(plan, name) for name in call.reads()} <= {torch.float32, torch.int64}


def test_convolutions_and_later_layers_compute_in_bfloat16() -> None:
    plan = plan_of(
        network(
            CONVOLUTION, "relu", {"id": "f", "test/followed": {}}, {"id": "d", "test/doubled": {}}
        ),
        without=["fusion"],
    )
    assert dtype(plan, "conv2d_1.y") is torch.bfloat16
    assert dtype(plan, "relu_1.y") is torch.bfloat16
    assert dtype(plan, "f.y") is torch.bfloat16
    assert dtype(plan, "d.y") is torch.float32  # undeclared layers get float32


def test_layer_with_mixed_inputs_computes_in_the_wider_dtype() -> None:
    plan = plan_of(
        network(
            CONVOLUTION, {"id": "c", "test/doubled": {}}, {"add": {}, "inputs": ["c", "conv2d_1"]}
        )
    )
    assert dtype(plan, "add_1.y") is torch.float32


def test_each_value_is_cast_once() -> None:
    two = {"id": "b", **CONVOLUTION, "inputs": ["$input"]}
    shared = {"id": "c", **CONVOLUTION, "inputs": ["$input"], "share": "b"}
    plan = plan_of(
        network({"id": "a", **CONVOLUTION}, two, shared, {"add": {}, "inputs": ["a", "b", "c"]}),
        without=["hoist_constants"],
    )
    assert len(casts(plan)) == len(set(casts(plan)))
    assert [name for name in casts(plan) if name.startswith("$input")] == ["$input:bfloat16"]
    assert [name for name in casts(plan) if name.startswith("b.")] == [
        "b.weight:bfloat16",
        "b.bias:bfloat16",
    ]


def test_float32_has_no_casts() -> None:
    assert casts(Model(SEED).plan(SHAPE, loss="mse")) == []


@pytest.mark.parametrize(
    "without", [[], ["block_layout"], ["block_layout", "fusion"]], ids=["blocks", "nchw", "single"]
)
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_a_step_is_as_exact_as_autocast_by_hand(without: list[str], kernels: str) -> None:
    """Both against float64: the same casts written with torch round in other places on each processor."""
    model = Model(SEED)
    program = model.compile(
        (4, 3, 32, 32), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu",
        precision="bfloat16", without=without, kernels=kernels,
    )  # fmt: skip
    x, target = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masters = {name: w.clone() for name, w in program.weights.items()}
    exact = {name: w.double().requires_grad_() for name, w in masters.items()}
    exact_loss = loss_of(exact, x.double(), target.double())
    exact_loss.backward()
    by_hand = {name: w.clone().requires_grad_() for name, w in masters.items()}
    loss_by_hand = loss_of({n: w.bfloat16() for n, w in by_hand.items()}, x.bfloat16(), target)
    loss_by_hand.backward()
    loss = program.step(x, target)
    for found in (loss, loss_by_hand.detach()):
        torch.testing.assert_close(found.double(), exact_loss.detach(), rtol=1e-3, atol=0)
    for name, master in masters.items():
        gradient = exact[name].grad
        assert gradient is not None
        for found in (master - program.weights[name], by_hand[name].grad):
            assert found is not None
            error = (found.double() - gradient).norm() / gradient.norm()
            # bfloat16 has 8 bits and rounds after each of eight layers; float32 would err by 1e-7.
            assert 1e-4 < error < 0.05, name


def loss_of(weights: Mapping[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of the paper's network, with its convolutions in the dtype of the weights."""
    h = F.conv2d(x, weights["conv2d_1.weight"], weights["conv2d_1.bias"], 2).relu()
    h = F.conv2d(h, weights["conv2d_2.weight"], weights["conv2d_2.bias"], 2).relu()
    h = F.conv_transpose2d(h, weights["upsampling_1.weight"], weights["upsampling_1.bias"], 2)
    h = F.conv_transpose2d(
        h.relu(), weights["upsampling_2.weight"], weights["upsampling_2.bias"], 2
    )
    return F.mse_loss(h.to(target.dtype).sigmoid(), target)


def test_two_hundred_steps_end_where_float32_ends() -> None:
    x, target = torch.rand(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ends = []
    for precision in (None, "bfloat16"):
        program = Model(SEED).compile(
            (8, 3, 8, 8),
            loss="mse",
            optimizer={"adam": {"lr": 1e-3}},
            device="cpu",
            precision=precision,
        )
        for _ in range(200):
            loss = program.step(x, target)
        ends.append(float(loss))
    assert ends[0] < 0.08  # from 0.085: it has learned
    assert ends[1] == pytest.approx(ends[0], rel=0.01)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_model_trains_in_half_precision(kind: torch.dtype) -> None:
    """Parameters too; torch's batch norm would keep its running mean in float32."""
    last = {"conv2d": {"out_channels": 3, "kernel_size": 1}}
    model = Model(network(CONVOLUTION, "batch_norm2d", "relu", last), seed=1)
    generator = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    trained: dict[torch.dtype, dict[str, Tensor]] = {}
    start: dict[str, Tensor] = {}
    for dtype in (torch.float64, kind):
        program = model.compile(SHAPE, loss="mse", optimizer=SGD(lr=0.1), device="cpu", dtype=dtype)
        start = start or {name: tensor.clone() for name, tensor in program.weights.items()}
        for name, tensor in program.weights.items():
            tensor.copy_(start[name])
        for _ in range(3):
            program.step(x.to(dtype), target.to(dtype))
        trained[dtype] = program.weights
    assert {tensor.dtype for tensor in trained[kind].values()} == {kind}
    for name, exact in trained[torch.float64].items():
        torch.testing.assert_close(trained[kind][name].double(), exact, rtol=0.05, atol=0.02)


def test_prediction_in_bfloat16_comes_out_in_float32() -> None:
    x = torch.rand(SHAPE)
    low, full = (Model(SEED).predict(x, precision=p) for p in ("bfloat16", None))
    assert low.dtype is torch.float32
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0.02, atol=0)
