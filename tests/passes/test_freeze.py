"""Freezing: what is frozen keeps its value and costs no gradient; the rest trains as in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphnet.errors import DescriptionError, LayerError
from graphnet.graph import Kind
from graphnet.inspection import explain
from graphnet.model import Model, Program
from graphnet.sdk import Layer, Register, Specs, StateSpec, hookimpl, load_registry

SHAPE = (4, 3, 8, 8)
CONV = {"out_channels": 8, "kernel_size": 3, "padding": 1}
NETWORK = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": CONV, "id": "stem"},
        {"batch_norm2d": {}, "id": "norm"},
        {"relu": {}, "id": "r1"},
        {"conv2d": CONV, "id": "body"},
        {"batch_norm2d": {}, "id": "norm2"},
        {"relu": {}, "id": "r2"},
        {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "head"},
    ],
}
NAMES = {"stem": 0, "norm": 1, "body": 3, "norm2": 4, "head": 6}


def images(seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return drawn[0].double(), drawn[1].double()


def reference() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 1),
        ).double()
        for module in made:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.data.uniform_(0.2, 0.7)
    return made


def named(module: nn.Sequential) -> dict[str, Tensor]:
    found = {}
    for name, index in NAMES.items():
        for key, tensor in module[index].state_dict().items():
            if key != "num_batches_tracked":
                found[f"{name}.{key}"] = tensor
    return found


def compiled(*selectors: dict[str, Any], **options: Any) -> Program:
    model = Model(NETWORK, weights=named(reference()))
    options = {
        "dtype": torch.float64,
        "optimizer": {"sgd": {"lr": 0.01, "momentum": 0.9}},
        **options,
    }
    return model.compile(SHAPE, loss="mse", device="cpu", parameters=list(selectors), **options)


def trained_by_torch(frozen: tuple[str, ...], fixed: tuple[str, ...], steps: int) -> nn.Sequential:
    module = reference()
    for name in frozen:
        module[NAMES[name]].requires_grad_(False)
    for name in fixed:
        module[NAMES[name]].eval()
    optimizer = torch.optim.SGD(
        [p for p in module.parameters() if p.requires_grad], lr=0.01, momentum=0.9
    )
    for step in range(steps):
        x, y = images(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        optimizer.step()
    return module


@pytest.mark.parametrize(
    ("selectors", "frozen", "fixed"),
    [
        pytest.param(
            [{"match": "stem.*", "freeze": True}, {"match": "norm.*", "freeze": True}],
            ("stem", "norm"), ("norm",), id="the first layers",
        ),
        pytest.param(
            [{"match": "norm2.*", "freeze": True}], ("norm2",), ("norm2",), id="a norm inside"
        ),
        pytest.param(
            [{"match": "norm2.weight", "freeze": True}, {"match": "norm2.bias", "freeze": True}],
            ("norm2",), (), id="without its statistics",
        ),
        pytest.param(
            [{"match": "*", "freeze": True}, {"match": "head.*", "freeze": False}],
            ("stem", "norm", "body", "norm2"), ("norm", "norm2"), id="all but the head",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_the_rest_trains_as_in_torch(
    selectors: list[dict[str, Any]], frozen: tuple[str, ...], fixed: tuple[str, ...], kernels: str
) -> None:
    program = compiled(*selectors, kernels=kernels)
    for step in range(3):
        program.step(*images(step))
    expected = named(trained_by_torch(frozen, fixed, steps=3))
    before = named(reference())
    for name, tensor in program.weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-9)
        node, _, port = name.partition(".")
        kept = node in (fixed if port.startswith("running") else frozen)
        if kept or port != "bias":  # the gradient of a bias before a norm is 0
            assert torch.equal(tensor, before[name]) == kept, name


def test_the_plan_has_no_gradient_state_or_update_of_what_is_frozen() -> None:
    whole = compiled().plan
    plan = compiled({"match": "*", "freeze": True}, {"match": "head.*", "freeze": False}).plan
    updated = {step.call.node for step in plan.steps if step.call.kind is Kind.UPDATE}
    assert updated == {"head"}
    assert [s.call.node for s in plan.steps if s.call.kind is Kind.BACKWARD] == ["@loss", "head"]
    assert set(plan.of(Kind.PARAMETER)) == {"head.weight", "head.bias"}
    assert {plan.values[n].of for n in plan.slots if plan.values[n].role} == {
        "head.weight",
        "head.bias",
    }
    assert len(plan.steps) < 0.6 * len(whole.steps)
    assert plan.peak_bytes < 0.85 * whole.peak_bytes
    assert "27 parameters in 2 tensors, 840 frozen" in explain(plan)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16", "dtype": torch.float32},
        {"accumulate": 2},
        {"ema": 0.5},
        {"clip_grad_norm": 0.1},
        {"executor": "reference"},
        pytest.param({"executor": "inductor"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_other_options_leave_what_is_frozen_as_it_is(options: dict[str, Any]) -> None:
    selectors = [{"match": "stem.*", "freeze": True}, {"match": "norm*", "freeze": True}]
    program = compiled(*selectors, **options)
    for step in range(4):
        program.step(*(tensor.to(options.get("dtype", torch.float64)) for tensor in images(step)))
    before = named(reference())
    for name, tensor in program.model_weights.items():
        kept = name.startswith(("stem", "norm"))
        assert torch.equal(tensor, before[name].to(tensor.dtype)) == kept, name


def test_a_frozen_model_is_saved_whole(tmp_path: Path) -> None:
    program = compiled({"match": "stem.*", "freeze": True})
    program.step(*images(0))
    program.save(tmp_path / "m.safetensors")
    x = images(1)[0]
    loaded = Model.load(tmp_path / "m.safetensors")
    torch.testing.assert_close(loaded.predict(x), program.predict(x))


class Counted(Layer):
    """x, and the number of steps: a layer with a state and without affine_map."""

    updates = ("count",)

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"count": StateSpec(())}

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        return x + 0, count + 1

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y

    def inference(self, x: Tensor) -> Tensor:
        return x + 0


class Acme:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/counted", Counted)


COUNTED = {
    "input": {"channels": 3},
    "layers": [
        {"acme/counted": {}, "id": "early"},
        {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "conv"},
        {"acme/counted": {}, "id": "late"},
    ],
}


def counted(*selectors: dict[str, Any]) -> Program:
    model = Model(COUNTED, registry=load_registry(plugins=[Acme()], entry_points=False))
    return model.compile(
        SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu", parameters=list(selectors)
    )


def test_a_state_without_affine_map_can_be_frozen_before_trained_parameters() -> None:
    program = counted(
        {"match": "early.*", "freeze": True}, {"match": "conv.*", "weight_decay": 0.1}
    )
    program.step(*(tensor.float() for tensor in images(0)))
    assert program.weights["early.count"] == 0
    assert program.weights["late.count"] == 1
    with pytest.raises(LayerError, match=r"'late'.*Counted has no affine_map"):
        counted({"match": "late.*", "freeze": True})


@pytest.mark.parametrize(
    ("selectors", "said"),
    [
        ([{"match": "*", "freeze": True}], "all parameters are frozen"),
        ([{"match": "stam.*", "freeze": True}], r"'stam.\*' matches no parameter"),
        ([{"match": "stem.*", "frozen": True}], "frozen: unknown field. Did you mean 'freeze'"),
        ([{"match": "stem.*", "freeze": "y"}], r"parameters\[0\]\.freeze"),
        ([{"match": "stem.*", "freeze": True, "lr_scale": 0.5}], "no other settings"),
        (
            [{"match": "norm.running_mean", "freeze": True}],
            "expected all states .* found running_mean",
        ),
        ([{"match": "norm.running*", "freeze": True}], "'norm'.*its parameters are trained"),
    ],
)
def test_what_cannot_be_frozen_is_said(selectors: list[dict[str, Any]], said: str) -> None:
    with pytest.raises((DescriptionError, LayerError), match=said):
        compiled(*selectors)
