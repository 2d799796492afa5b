"""What goes with an optimizer in the plan: selectors, clipping, averages, gradients of several steps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import graphnet as gn
from graphnet.builtin import SGD, Adam, AdamW
from graphnet.description import parse
from graphnet.errors import CheckpointError, DescriptionError, PlanError
from graphnet.executors import prepare
from graphnet.graph import Call, Graph, Kind, stated_machine
from graphnet.inspection import breakdown, first_nonfinite
from graphnet.inspection.report import Phase
from graphnet.inspection.step_timing import random_arguments
from graphnet.model import Model, Program
from graphnet.passes import ema, recompute
from graphnet.passes.clip import ClipFactor
from graphnet.plan import Plan, Step, schedule, verify
from graphnet.sdk import load_registry
from tests.support.models import SEED, Acme
from tests.support.oracle import random_tensor
from tests.support.steps import one_second, step_graph

SHAPE = (4, 3, 8, 8)
CONV = {"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
DEEP: dict[str, Any] = {"input": {"channels": 3}, "layers": [CONV, "sigmoid"] * 10}
CPU = torch.device("cpu")
FLOAT64: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}


@pytest.fixture(autouse=True)
def _same_bits() -> Iterator[None]:
    """Two runs are compared bit by bit, and cuDNN adds up a weight's gradient in any order unless told."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield


def pair(step: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Inputs and targets of a step, float64."""
    a, b = (random_tensor(SHAPE, seed=2 * step + i, device=device) for i in (0, 1))
    return a, b.sigmoid()


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def calls(plan: Plan) -> list[str]:
    return [step.call.name for step in plan.steps]


# -- averages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["eager", "reference"])
@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_averages_follow_the_weights_as_the_equation_says(
    decay: float, executor: str, device: torch.device
) -> None:
    options = {**FLOAT64, "device": device, "executor": executor}
    program = Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=2.0), ema=decay, **options)
    plain = Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=2.0), **options)
    expected = copies(program.weights)
    assert {n: t.tolist() for n, t in program.averages.items()} == {
        n: t.tolist() for n, t in expected.items()
    }
    for t in range(8):  # (1 + t) / (10 + t) is below 0.25 for t < 2
        program.step(*pair(t, device))
        plain.step(*pair(t, device))
        d = min(decay, (1 + t) / (10 + t))
        expected = {n: d * a + (1 - d) * program.weights[n] for n, a in expected.items()}
        for name, tensor in expected.items():
            torch.testing.assert_close(program.averages[name], tensor, rtol=1e-12, atol=1e-15)
            assert torch.equal(program.weights[name], plain.weights[name])  # trained as without


def test_averages_predict_and_are_saved(tmp_path: Path) -> None:
    program = Model(SEED).compile(
        SHAPE, loss="mse", optimizer=Adam(lr=0.1), ema=0.9, device="cpu", seed=3
    )
    x, target = (tensor.float() for tensor in pair(0))
    first = program.predict(x)
    assert isinstance(first, Tensor)
    torch.testing.assert_close(first, Model(SEED, seed=3).predict(x))  # those at the start
    for _ in range(5):
        program.step(x, target)
    program.save(str(tmp_path / "m.safetensors"))
    loaded = Model.load(tmp_path / "m.safetensors")
    assert loaded.weights is not None
    found = program.predict(x)
    assert isinstance(found, Tensor)
    assert not torch.allclose(found, first)
    for name, tensor in program.averages.items():
        assert torch.equal(loaded.weights[name], tensor)
        assert not torch.allclose(program.weights[name], tensor)
    torch.testing.assert_close(found, loaded.predict(x))
    raw = Model(SEED, weights=program.weights).predict(x)
    assert not torch.allclose(found, raw)


def test_states_of_layers_are_used_as_they_are_beside_averages() -> None:
    model = Model(
        {"input": {"channels": 3}, "layers": [{"id": "n", "batch_norm2d": {}}, "sigmoid"]}
    )
    program = model.compile(SHAPE, loss="mse", optimizer=SGD(lr=0.1), ema=0.9, **FLOAT64)
    program.step(*pair(0))
    assert list(program.averages) == ["n.weight", "n.bias"]
    mean, same = program.model_weights["n.running_mean"], program.weights["n.running_mean"]
    assert mean.data_ptr() == same.data_ptr()


def test_plan_without_ema_has_no_ema_calls_or_slots() -> None:
    model = Model(SEED)
    plain = model.plan(SHAPE, loss="mse", optimizer=SGD(lr=0.1))
    with_ema = model.plan(SHAPE, loss="mse", optimizer=SGD(lr=0.1), ema=0.9)
    more = set(calls(with_ema)) - set(calls(plain))
    parameters = plain.of(Kind.PARAMETER)
    assert more == {"@ema:rate", *(f"{name}:@ema:update" for name in parameters)}
    assert not set(calls(plain)) - set(calls(with_ema))
    assert Model(SEED).plan(SHAPE, loss="mse", ema=0.9) == Model(SEED).plan(SHAPE, loss="mse")


def same_in_a_narrow_place(**updates: Any) -> None:
    """Training with these updates is the same where values are computed again, and in bfloat16."""
    found = []
    options: list[dict[str, Any]] = [{}, {"memory": "70%"}, {"precision": "bfloat16"}]
    for given in options:
        program = Model(DEEP).compile(
            SHAPE, loss="mse", optimizer=SGD(lr=1.0), device="cpu", **updates, **given
        )
        for t in range(4):
            program.step(*(tensor.float() for tensor in pair(t)))
        again = [step.call for step in program.plan.steps if step.call.repeats]
        assert bool(again) == ("memory" in given)
        found.append(program.model_weights)
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name
        torch.testing.assert_close(found[2][name], tensor, rtol=0.05, atol=5e-3)


def test_averages_take_part_in_memory_and_precision() -> None:
    same_in_a_narrow_place(ema=0.5)


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.5, "much"])
def test_a_decay_outside_of_0_to_1_is_an_error(ema: Any) -> None:
    with pytest.raises(DescriptionError, match="ema: expected"):
        Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=1.0), ema=ema)


def test_a_training_state_that_does_not_fit_is_refused() -> None:
    def program(**options: Any) -> Program:
        return Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=1.0), **FLOAT64, **options)

    state = program(ema=0.9).training_state
    assert set(state) == set(program().weights)  # the weights behind the averages
    with pytest.raises(
        CheckpointError, match=r"training state of the .* differs in conv2d_1\.bias"
    ):
        program().restore(state, steps_done=1)


# -- clipping ----------------------------------------------------------------------------------------


def in_torch(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network of SEED."""

    def given(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    x = F.conv2d(x, *given("conv2d_1"), stride=2).relu()
    x = F.conv2d(x, *given("conv2d_2"), stride=2).relu()
    x = F.conv_transpose2d(x, *given("upsampling_1"), stride=2).relu()
    return F.conv_transpose2d(x, *given("upsampling_2"), stride=2).sigmoid()


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize(("max_norm", "clips"), [(1e-3, True), (1e3, False)])
def test_clipped_steps_equal_torch(
    max_norm: float, clips: bool, kernels: str, device: torch.device
) -> None:
    options = {**FLOAT64, "device": device, "kernels": kernels}
    program, plain = (
        Model(SEED).compile(
            SHAPE, loss="mse", optimizer=SGD(lr=0.5, momentum=0.9), clip_grad_norm=norm, **options
        )
        for norm in (max_norm, None)
    )
    leaves = {n: t.clone().requires_grad_() for n, t in program.weights.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=0.5, momentum=0.9)
    for step in range(5):
        x, target = pair(step, device)
        optimizer.zero_grad()
        F.mse_loss(in_torch(leaves, x), target).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(leaves.values(), max_norm)
        assert bool(norm > max_norm) == clips
        optimizer.step()
        program.step(x, target)
        plain.step(x, target)
    for name, leaf in leaves.items():
        torch.testing.assert_close(program.weights[name], leaf.detach(), rtol=1e-9, atol=1e-13)
        assert torch.equal(program.weights[name], plain.weights[name]) != clips


def test_clipping_is_nodes_between_gradients_and_updates_that_need_no_memory() -> None:
    model = Model(SEED)
    plain = model.plan(SHAPE, loss="mse", optimizer=SGD(lr=0.1))
    plan = model.plan(SHAPE, loss="mse", optimizer=SGD(lr=0.1), clip_grad_norm=1.0)
    parameters = plan.of(Kind.PARAMETER)
    assert set(calls(plan)) - set(calls(plain)) == {"@clip", *(f"{p}:clip" for p in parameters)}
    steps = {step.call.name: step.call for step in plan.steps}
    assert len(list(steps["@clip"].reads())) == len(parameters)
    for parameter in parameters:
        clipped, update = steps[f"{parameter}:clip"], steps[f"{parameter}:update"]
        assert clipped.in_place
        assert f"{parameter}:clipped" in update.reads()
    assert model.plan(SHAPE, loss="mse", clip_grad_norm=1.0) == model.plan(SHAPE, loss="mse")


def test_the_global_norm_is_taken_over_gradients_of_several_dtypes() -> None:
    xs = torch.tensor([3.0]), torch.tensor([[4.0]], dtype=torch.bfloat16)
    factor = ClipFactor(max_norm=1.0).forward(*xs)
    assert factor.dtype == torch.float32
    assert factor.item() == pytest.approx(0.2, rel=1e-6)
    wide = ClipFactor(max_norm=1.0).forward(*xs, torch.tensor(0.0, dtype=torch.float64))
    assert wide.dtype == torch.float64
    assert wide.item() == pytest.approx(1 / (5 + 1e-6), rel=1e-15)


def test_clipping_takes_part_in_memory_and_precision() -> None:
    same_in_a_narrow_place(clip_grad_norm=0.01, ema=0.9)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), "1"])
def test_a_norm_that_is_not_above_0_is_an_error(norm: Any) -> None:
    with pytest.raises(DescriptionError, match="clip_grad_norm: expected"):
        Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=1.0), clip_grad_norm=norm)


# -- selectors ---------------------------------------------------------------------------------------

GROUPS: list[dict[str, Any]] = [
    {"match": "*.bias", "weight_decay": 0.0},
    {"match": "conv2d_[12].*", "lr_scale": 0.1},
    {"match": "*_1.*", "betas": [0.8, 0.9], "lr_scale": 3},  # overrides the 0.1 of conv2d_1
    {"match": "upsampling_2.weight", "lr_scale": 0.1, "eps": 0.01},
    {"match": "upsampling_1.bias", "betas": [0.5, 0.6]},  # overrides those of *_1.*
]


def groups(weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What GROUPS say, worked out by hand."""
    return [
        {"params": [weights["conv2d_1.weight"]], "lr": 0.06, "betas": (0.8, 0.9)},
        {
            "params": [weights["conv2d_1.bias"]],
            "lr": 0.06,
            "betas": (0.8, 0.9),
            "weight_decay": 0.0,
        },
        {"params": [weights["conv2d_2.weight"]], "lr": 0.002},
        {"params": [weights["conv2d_2.bias"]], "lr": 0.002, "weight_decay": 0.0},
        {"params": [weights["upsampling_1.weight"]], "lr": 0.06, "betas": (0.8, 0.9)},
        {
            "params": [weights["upsampling_1.bias"]],
            "lr": 0.06,
            "betas": (0.5, 0.6),
            "weight_decay": 0.0,
        },
        {"params": [weights["upsampling_2.weight"]], "lr": 0.002, "eps": 0.01},
        {"params": [weights["upsampling_2.bias"]], "weight_decay": 0.0},
    ]


def test_selectors_make_the_parameter_groups_of_torch(device: torch.device) -> None:
    program = Model(SEED).compile(
        SHAPE, loss="mse", optimizer=AdamW(lr=0.02, weight_decay=0.5), parameters=GROUPS,
        **{**FLOAT64, "device": device},
    )  # fmt: skip
    leaves = {n: t.clone().requires_grad_() for n, t in program.weights.items()}
    optimizer = torch.optim.AdamW(groups(leaves), lr=0.02, weight_decay=0.5)
    for step in range(5):
        x, target = pair(step, device)
        if step == 3:  # one learning rate drives all: each keeps its factor
            program.lr *= 0.5
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
        optimizer.zero_grad()
        F.mse_loss(in_torch(leaves, x), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        program.step(x, target)
    for name, leaf in leaves.items():
        torch.testing.assert_close(program.weights[name], leaf.detach(), rtol=1e-9, atol=1e-12)
    made = [call for call in calls(program.plan) if call.startswith("@lr")]
    assert made == ["@lr:1", "@lr:2"]  # 3 and 0.1, whoever has them


def test_a_plan_without_selectors_has_one_rate_and_one_rule() -> None:
    plan = Model(SEED).plan(SHAPE, loss="mse", optimizer=AdamW())
    assert plan == Model(SEED).plan(
        SHAPE, loss="mse", optimizer=AdamW(), parameters=[{"match": "*", "lr_scale": 1.0}]
    )
    assert not [call for call in calls(plan) if call.startswith("@lr")]
    assert {s.call.layer for s in plan.steps if s.call.kind is Kind.UPDATE} == {AdamW()}


@pytest.mark.parametrize(
    ("selector", "messages"),
    [
        ("*.bias", ["parameters[0]: expected {match: PATTERN, FIELD: VALUE}, found '*.bias'"]),
        ({"lr_scale": 0.1}, ["parameters[0].match: must be given"]),
        ({"match": "", "lr_scale": 1}, ["parameters[0].match: expected"]),
        (
            {"match": "*.bias"},
            [
                "parameters[0]: changes nothing. Give lr_scale, freeze, or one of betas, eps, weight_decay."
            ],
        ),
        ({"match": "*", "lr": 0.1}, ["parameters[0].lr: one learning rate drives all parameters"]),
        (
            {"match": "*", "weight_deacy": 0.0, "lr_scale": -1.0, "eps": 0.0},
            [
                "parameters[0].lr_scale: expected greater than or equal to 0, found -1.0",
                "parameters[0].eps: expected greater than 0, found 0.0",
                "parameters[0].weight_deacy: unknown field. Did you mean 'weight_decay'?",
            ],
        ),
        (
            {"match": "conv2d_1.wieght", "lr_scale": 0.1},
            [
                "parameters[0].match: 'conv2d_1.wieght' matches no parameter. "
                "Did you mean 'conv2d_1.weight'"
            ],
        ),
        ({"match": "stem.*", "lr_scale": 0.1}, ["matches no parameter. Known: conv2d_1.bias, "]),
    ],
)
def test_wrong_selectors_are_errors_in_words(selector: Any, messages: list[str]) -> None:
    with pytest.raises(DescriptionError) as caught:
        Model(SEED).compile(
            SHAPE, loss="mse", optimizer=AdamW(), parameters=[selector], device="cpu"
        )
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        assert message in str(caught.value)


def test_a_pattern_that_matches_nothing_of_many_names_some() -> None:
    with pytest.raises(DescriptionError, match=r"Known: conv2d_1\.weight, .* and 8 more\."):
        Model(DEEP).plan(
            SHAPE,
            loss="mse",
            optimizer=SGD(lr=1.0),
            parameters=[{"match": "[!a-z]*", "lr_scale": 0.1}],
        )


# -- gradients of several steps ----------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "optimizer": AdamW(lr=0.02),
    "parameters": [{"match": "*.bias", "weight_decay": 0.0, "lr_scale": 0.5}],
    "clip_grad_norm": 0.01,
    "ema": 0.9,
}
RULES: list[dict[str, Any]] = [{"optimizer": SGD(lr=0.5, momentum=0.9)}, EVERYTHING]


@pytest.mark.parametrize("executor", ["eager", "reference"])
@pytest.mark.parametrize("updates", RULES, ids=["sgd", "everything"])
@pytest.mark.parametrize("every", [2, 4])
def test_several_steps_equal_one_of_a_batch_as_large(
    every: int, updates: dict[str, Any], executor: str, device: torch.device
) -> None:
    options = {**FLOAT64, **updates, "device": device, "executor": executor}
    loss = ["mse", {"psnr": {}, "weight": 0.01}]
    small = (SHAPE[0] // every, *SHAPE[1:])
    whole = Model(SEED).compile(SHAPE, loss=loss, **options)
    parts = Model(SEED).compile(small, loss=loss, accumulate=every, **options)
    for update in range(3):
        x, target = pair(update, device)
        before = copies(parts.weights)
        losses = []
        for i, batch in enumerate(zip(x.chunk(every), target.chunk(every), strict=True)):
            assert (parts.next_plan is parts.plan) == (i == every - 1)
            for name, tensor in before.items():
                assert torch.equal(parts.weights[name], tensor)  # not before the last of them
            losses.append(parts.step(*batch))
        mean = torch.stack(losses).mean()
        torch.testing.assert_close(mean, whole.step(x, target), rtol=1e-12, atol=0)
        for name, tensor in whole.model_weights.items():
            torch.testing.assert_close(parts.model_weights[name], tensor, rtol=1e-9, atol=1e-12)
            assert not torch.equal(parts.weights[name], before[name])
    sums = {n: t for n, t in parts.optimizer_state.items() if n.endswith(":@grad")}
    assert len(sums) == len(parts.weights)
    assert not any(tensor.any() for tensor in sums.values())


def test_a_step_that_adds_up_has_no_optimizer_and_no_state_of_one() -> None:
    program = Model(SEED).compile(SHAPE, loss="mse", accumulate=3, device="cpu", **EVERYTHING)
    adding = program.next_plan
    written = {slot for s in adding.steps for slot in s.call.writes.values() if ":" in slot}
    assert written == {f"{name}:@grad" for name in program.weights}
    assert set(adding.slots) == {*program.weights, *written}
    assert "@lr" not in adding.arguments
    assert set(program.plan.slots) > set(adding.slots)
    plain = Model(SEED).plan(SHAPE, loss="mse", **EVERYTHING)
    assert plain == Model(SEED).plan(SHAPE, loss="mse", accumulate=1, **EVERYTHING)


def test_states_of_layers_move_in_every_step_and_keys_differ() -> None:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    layers = [{"id": "n", "batch_norm2d": {"momentum": 1.0}}, "acme/dropout"]
    model = Model({"input": {"channels": 3}, "layers": layers}, registry=registry)
    program = model.compile(SHAPE, loss="mse", optimizer=SGD(lr=0.0), accumulate=2, **FLOAT64)
    losses = set()
    for step in range(4):
        x, target = pair(step)
        program.step(x, target)
        torch.testing.assert_close(program.weights["n.running_mean"], x.mean((0, 2, 3)))
        again = model.compile(SHAPE, loss="mse", optimizer=SGD(lr=0.0), accumulate=2, **FLOAT64)
        again.rewind(step)
        losses.add(float(again.step(*pair(0))))
    assert len(losses) == 4  # the same batch, another key in each step


def test_adding_up_takes_part_in_memory_and_precision() -> None:
    same_in_a_narrow_place(accumulate=2, clip_grad_norm=0.01, ema=0.9)
    program = Model(DEEP).compile(
        SHAPE, loss="mse", optimizer=SGD(lr=1.0), accumulate=2, memory="70%", device="cpu"
    )
    assert any(step.call.repeats for step in program.next_plan.steps)


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_a_number_of_steps_below_1_is_an_error(every: Any) -> None:
    with pytest.raises(DescriptionError, match="accumulate: expected"):
        Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD(lr=1.0), accumulate=every)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_plan_with_everything_equals_eager(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
    loss = ["charbonnier", {"psnr": {}, "weight": 0.01}]
    model = Model({"input": {"channels": 3}, "layers": [CONV, "sigmoid"]})
    programs = [
        model.compile(SHAPE, loss=loss, accumulate=2, executor=executor, device="cpu", **EVERYTHING)
        for executor in ("eager", "inductor")
    ]
    for step in range(4):
        batch = [tensor.float() for tensor in pair(step)]
        losses = [program.step(*batch) for program in programs]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for name, tensor in programs[0].model_weights.items():
        torch.testing.assert_close(programs[1].model_weights[name], tensor, rtol=1e-3, atol=1e-5)
    assert set(programs[1].accumulation.record()) == {"compiled", "adding"}


# -- the plan with all of it: shown, written as a file, searched ------------------------------------


def test_a_plan_with_everything_is_shown_and_runs_as_a_file() -> None:
    plan = Model(SEED).plan(SHAPE, loss=["mse", "l1"], accumulate=2, **EVERYTHING)
    phases = {row.call.name: row.phase for row in breakdown(plan, stated_machine(CPU)).rows}
    for name in (
        "@clip",
        "@lr:1",
        "@ema:rate",
        "conv2d_1.weight:clip",
        "conv2d_1.bias:@ema:update",
    ):
        assert phases[name] is Phase.UPDATE
    assert phases["conv2d_1.weight:total"] is Phase.REVERSE
    shown = gn.explain(plan)
    assert "writes .weight:@ema" in shown
    assert re.search(r"@clip +clip scale +- +scalar f32", shown)
    given = random_arguments(plan, seed=0)
    given["@lr"].fill_(0.1)
    found, expected = copies(dict(given)), copies(dict(given))
    module: dict[str, Any] = {"__name__": "plan"}
    exec(gn.source(plan), module)
    with torch.no_grad():
        outputs = module["step"](*found.values())
        assert torch.equal(outputs[0], prepare(plan, "reference")(*expected.values())[0])
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    moved = [name for name in plan.slots if not torch.equal(found[name], given[name])]
    assert {f"{name}:@ema" for name in plan.of(Kind.PARAMETER)} <= set(moved)


def test_a_factor_that_overflows_is_found() -> None:
    program = Model(SEED).compile(
        SHAPE, loss="mse", optimizer=SGD(lr=1.0), device="cpu",
        parameters=[{"match": "*.bias", "lr_scale": 100.0}],
    )  # fmt: skip
    program.lr = 1e37
    found = first_nonfinite(program.plan, program.arguments(*(t.float() for t in pair(0))))
    assert found is not None
    assert "in the update, node '@lr' (lr, from graphnet itself) made" in str(found)


# -- the verifier on plans in which an update's result is read ---------------------------------------


@pytest.fixture(scope="module")
def averaged() -> Graph:
    registry = load_registry(plugins=[Acme()], entry_points=False)
    return ema(step_graph(parse(SEED), registry, shape=SHAPE), decay=0.9)


def test_verifier_accepts_a_read_of_an_updated_slot(averaged: Graph) -> None:
    verify(averaged, schedule(averaged))
    small = recompute(averaged, memory_bytes=10**9, seconds=one_second).graph
    verify(small, schedule(small))


def moved(plan: Plan, call: str, before: str) -> Plan:
    """The plan with one call moved right before another."""
    one = next(step for step in plan.steps if step.call.name == call)
    rest = [step for step in plan.steps if step is not one]
    place = next(i for i, step in enumerate(rest) if step.call.name == before)
    return replace(plan, steps=(*rest[:place], one, *rest[place:]))


def test_verifier_rejects_a_read_of_the_result_before_its_update(averaged: Graph) -> None:
    name = "conv2d_1.weight"
    plan = moved(schedule(averaged), f"{name}:@ema:update", f"{name}:update")
    with pytest.raises(PlanError, match=f"reads '{name}:next', which is freed or not made yet"):
        verify(averaged, plan)


def test_verifier_rejects_a_read_of_the_slot_in_place_of_the_result(averaged: Graph) -> None:
    name = "conv2d_1.weight"

    def stale(call: Call) -> Call:
        args = tuple(name if arg == f"{name}:next" else arg for arg in call.args)
        return replace(call, args=args)

    graph = replace(averaged, calls={n: stale(call) for n, call in averaged.calls.items()})
    plan = schedule(averaged)
    plan = replace(plan, steps=tuple(Step(stale(s.call), s.frees) for s in plan.steps))
    with pytest.raises(PlanError, match=f"reads '{name}', but its storage now holds something"):
        verify(graph, plan)


def test_verifier_rejects_a_plan_that_frees_an_updated_parameter(averaged: Graph) -> None:
    name = "conv2d_1.weight:next"
    plan = schedule(averaged)
    steps = tuple(
        replace(s, frees=(*s.frees, name)) if name in s.call.reads() else s for s in plan.steps
    )
    with pytest.raises(PlanError, match=f"frees '{name}', which outlives the run"):
        verify(averaged, replace(plan, steps=steps))
