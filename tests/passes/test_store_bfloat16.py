"""What waits for the reverse pass in bfloat16: the same loss, the gradients of rounded values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.description import parse
from graphnet.errors import PlanError
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.passes import store_bfloat16
from graphnet.plan import Plan
from graphnet.plan.verify import verify_graph
from graphnet.sdk import Cast, load_registry
from tests.support.steps import step_graph

SHAPE = (2, 4, 24, 24)
CONVOLUTION = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
LAYERS = [CONVOLUTION, "sigmoid", CONVOLUTION, "relu", CONVOLUTION]


def model(*layers: Any) -> Model:
    registry = load_registry(entry_points=False)
    return Model({"input": {"channels": 4}, "layers": list(layers)}, registry=registry)


def plan(*layers: Any, shape: tuple[int, ...] = SHAPE, **options: Any) -> Plan:
    return model(*layers).plan(shape, loss="mse", optimizer=SGD(lr=0.1), **options)


def casts(plan: Plan) -> list[str]:
    return [step.call.name for step in plan.steps if isinstance(step.call.layer, Cast)]


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, *SHAPE, generator=generator)
    return x, target


def test_the_loss_is_the_same_and_gradients_are_near() -> None:
    losses, weights = [], []
    for dtype in (None, "bfloat16"):
        program = model(*LAYERS).compile(
            SHAPE, loss="mse", optimizer=SGD(lr=1.0), device="cpu", saved_dtype=dtype
        )
        before = {name: w.clone() for name, w in program.weights.items()}
        losses.append(program.step(*images()))
        weights.append({name: w - before[name] for name, w in program.weights.items()})
    assert torch.equal(losses[0], losses[1])
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name, exact in weights[0].items():
        assert float((weights[1][name] - exact).norm()) < 4e-3 * float(exact.norm())


def test_a_weights_gradient_is_that_of_the_rounded_input() -> None:
    """conv2d after sigmoid, by torch: its input rounded to bfloat16, everything else in float32."""
    program = model("sigmoid", CONVOLUTION).compile(
        SHAPE,
        loss="mse",
        optimizer=SGD(lr=1.0),
        device="cpu",
        saved_dtype="bfloat16",
        kernels="reference",
    )
    before = {name: w.clone() for name, w in program.weights.items()}
    x, target = images()
    program.step(x, target)
    (name,) = (name for name in before if name.endswith("weight"))
    (bias,) = (name for name in before if name.endswith("bias"))
    exact = x.sigmoid()
    y = F.conv2d(exact, before[name], before[bias], padding=1)
    grad_y = 2 * (y - target) / y.numel()
    rounded = exact.bfloat16().float()
    expected = torch.nn.grad.conv2d_weight(rounded, before[name].shape, grad_y, padding=1)
    unrounded = torch.nn.grad.conv2d_weight(exact, before[name].shape, grad_y, padding=1)
    found = before[name] - program.weights[name]
    error = float((found - expected).norm() / expected.norm())
    apart = float((unrounded - expected).norm() / expected.norm())
    assert error < 1e-6
    assert apart > 1e-5


def test_a_long_chain_needs_little_more_than_half() -> None:
    layers = [CONVOLUTION, "relu"] * 40
    whole = plan(*layers, shape=(8, 4, 32, 32))
    half = plan(*layers, shape=(8, 4, 32, 32), saved_dtype="bfloat16")
    assert half.peak_bytes < 0.6 * whole.peak_bytes


def test_each_value_is_rounded_once_and_widened_for_each_reader() -> None:
    found = casts(plan(*LAYERS, saved_dtype="bfloat16", kernels="reference"))
    narrow = [name for name in found if name.endswith(":kept")]
    wide = [name for name in found if ":kept:" in name]
    assert len(narrow) == len(set(narrow))
    assert set(found) == {*narrow, *wide}
    # The sigmoid's output is read by its own backward and by the next convolution's.
    (sigmoid,) = (name for name in narrow if name.startswith("sigmoid"))
    assert len([name for name in wide if name.startswith(f"{sigmoid}:")]) == 2


def test_layer_that_accepts_saved_bfloat16_reads_it_without_a_cast() -> None:
    layers = [
        {"id": "c", **CONVOLUTION},
        {"id": "a", "sigmoid": {}, "inputs": ["c"]},
        {"id": "b", "tanh": {}, "inputs": ["c"]},
        {"id": "product", "multiply": {}, "inputs": ["a", "b"]},
        CONVOLUTION,
    ]
    found = plan(*layers, saved_dtype="bfloat16")
    (backward,) = (s.call for s in found.steps if s.call.name == "product:backward")
    kept = [name for name in backward.reads() if ":kept" in name]
    assert sorted(kept) == ["a.y:kept.y", "b.y:kept.y"]
    assert all(f":kept:{backward.name}" not in name for name in casts(found))


def test_predictions_small_values_and_narrow_ones_are_left_alone() -> None:
    assert casts(plan(CONVOLUTION, saved_dtype="bfloat16")) == []  # its output is the prediction
    assert casts(plan(*LAYERS, shape=(1, 4, 8, 8), saved_dtype="bfloat16")) == []
    lowered = plan(*LAYERS, saved_dtype="bfloat16", precision="bfloat16")
    narrowed = [name for name in casts(lowered) if name.endswith(":kept")]
    assert narrowed == ["sigmoid_1.y:kept"]  # a sigmoid runs in float32, convolutions do not


def test_value_cast_to_float32_is_stored_before_the_cast() -> None:
    """The gate is float32, so the convolution's bfloat16 is widened to be multiplied with it."""
    gated = (
        {"id": "c", **CONVOLUTION},
        {"id": "g", "sigmoid": {}},
        {"id": "m", "multiply": {}, "inputs": ["c", "g"]},
        CONVOLUTION,
    )
    found = plan(*gated, saved_dtype="bfloat16", precision="bfloat16")
    (backward,) = (s.call for s in found.steps if s.call.name == "m:backward")
    assert {"c.y:float32.y:kept.y", "g.y:kept.y"} <= set(backward.reads())


def test_bfloat16_storage_works_with_a_memory_bound() -> None:
    layers = [CONVOLUTION, "relu"] * 12
    half = plan(*layers, shape=(8, 4, 32, 32), saved_dtype="bfloat16")
    bounded = plan(*layers, shape=(8, 4, 32, 32), saved_dtype="bfloat16", memory="70%")
    assert bounded.peak_bytes <= 0.7 * half.peak_bytes
    assert any(step.call.repeats for step in bounded.steps)


def test_inference_plans_store_nothing_in_bfloat16() -> None:
    program = model(*LAYERS).compile(
        SHAPE, loss="mse", optimizer=SGD(lr=1.0), device="cpu", saved_dtype="bfloat16"
    )
    x = images()[0]
    assert torch.equal(program.predict(x), model(*LAYERS).predict(x))


def test_the_pass_is_listed_and_can_be_switched_off() -> None:
    with_pass = plan(*LAYERS, saved_dtype="bfloat16")
    (change,) = (change for change in with_pass.changes if change.name == "store_bfloat16")
    assert change.added
    assert casts(plan(*LAYERS, saved_dtype="bfloat16", without=["store_bfloat16"])) == []
    assert all(change.name != "store_bfloat16" for change in plan(*LAYERS).changes)
    assert {step.call.kind for step in with_pass.steps if step.call.title == "cast"} == {Kind.LAYER}


def test_a_reverse_pass_that_reads_a_rounding_of_another_value_is_rejected() -> None:
    graph = step_graph(
        parse({"input": {"channels": 4}, "layers": LAYERS}),
        load_registry(entry_points=False),
        shape=SHAPE,
    )
    kept = store_bfloat16(graph)
    verify_graph(kept)
    first, second, *_ = [name for name in kept.calls if name.endswith(":kept")]
    reader = next(call for name, call in kept.calls.items() if name.startswith(f"{first}:"))
    wrong = replace(reader, args=(kept.calls[second].results[0],))
    with pytest.raises(PlanError, match="reads another"):
        verify_graph(replace(kept, calls={**kept.calls, reader.name: wrong}))
