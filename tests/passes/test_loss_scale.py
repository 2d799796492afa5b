"""float16 under a loss scale: the steps of torch.amp.GradScaler, and what a skipped one leaves alone."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import graphnet as gn
from graphnet.builtin import SGD, Adam, AdamW
from graphnet.builtin.kernels import multi_tensor
from graphnet.cli import run
from graphnet.executors import prepare
from graphnet.inspection import Gradients, first_nonfinite
from graphnet.inspection.step_timing import random_arguments
from graphnet.inspection.walk import complete
from graphnet.model import Model, Program
from graphnet.passes.loss_scale import DONE, GOOD, SCALE, FollowFit
from graphnet.plan import Plan
from graphnet.sdk import (
    IfFinite,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Precision,
    Register,
    hookimpl,
    load_registry,
)
from tests.executors.test_cudagraph import OnTheCPU
from tests.support.models import SEED

SHAPE = (4, 3, 8, 8)
SMALL: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 5, "kernel_size": 3, "padding": 1}},
        "relu",
        {"conv2d": {"out_channels": 3, "kernel_size": 1}},
    ],
}


def pair(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=draw), torch.rand(shape, generator=draw)


def compiled(optimizer: Optimizer, *, model: Any = SMALL, **options: Any) -> Program:
    settings = {"precision": "float16", "device": "cpu", "loss": "mse", **options}
    return Model(model).compile(SHAPE, optimizer=optimizer, **settings)


def names(plan: Plan) -> set[str]:
    return {step.call.name for step in plan.steps}


def state(program: Program) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in (program.weights | program.optimizer_state).items()}


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        (SGD(lr=0.1, momentum=0.9), lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9)),
        (Adam(lr=0.01), lambda ps: torch.optim.Adam(ps, lr=0.01)),
        (AdamW(lr=0.01), lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.01)),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_steps_equal_those_of_torchs_scaler(
    optimizer: Optimizer, theirs: Any, device: torch.device
) -> None:
    program = compiled(optimizer, device=str(device))
    masters = {name: t.clone().requires_grad_() for name, t in program.weights.items()}
    rule, scaler = theirs(list(masters.values())), torch.amp.GradScaler(device.type)
    scales = []
    for step in range(8):
        x, target = (tensor.to(device) for tensor in pair(step))
        target = target * (2e4 if step in (0, 3, 4) else 1)  # gradients beyond 65504 / scale
        loss = program.step(x, target)
        w1, b1, w2, b2 = (master.half() for master in masters.values())
        y = F.conv2d(F.relu(F.conv2d(x.half(), w1, b1, padding=1)), w2, b2)
        with torch.enable_grad():
            expected = F.mse_loss(y.float(), target)
        rule.zero_grad()
        scaler.scale(expected).backward()
        scaler.step(rule)
        scaler.update()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-3, atol=0)
        assert float(program.optimizer_state[SCALE]) == scaler.get_scale()
        for name, master in masters.items():
            torch.testing.assert_close(program.weights[name], master.detach(), rtol=0, atol=2e-4)
        scales.append(scaler.get_scale())
    skipped = [a > b for a, b in itertools.pairwise([2.0**16, *scales])]
    assert 3 <= sum(skipped) < 8
    assert int(program.optimizer_state[DONE]) == 8 - sum(skipped)


def test_gradients_too_small_for_float16_reach_the_weights() -> None:
    shape = (16, 3, 256, 256)
    layer = {"conv2d": {"out_channels": 3, "kernel_size": 1}}
    model = Model({"input": {"channels": 3}, "layers": [layer]})
    x, noise = pair(0, shape)
    moved = []
    for precision in ("float32", "float16"):
        settings = {"optimizer": SGD(lr=1.0), "precision": precision, "device": "cpu"}
        program = model.compile(shape, loss="mse", **settings)
        before = state(program)
        far = 0.04 * noise
        assert torch.all((2 * far / x.numel()).half() == 0)  # the gradient of the prediction
        program.step(x, program.predict(x) + far)
        moved.append({name: program.weights[name] - before[name] for name in program.weights})
    exact, found = moved
    for name, way in exact.items():
        assert float((found[name] - way).norm() / way.norm()) < 0.02, name


def test_scale_halves_after_overflow_and_doubles_after_good_steps() -> None:
    scale, good, done = torch.tensor(8.0), torch.tensor(0, dtype=torch.int32), torch.tensor(0)
    seen = []
    for finite in (True, False, True, True, True, True, False, False):
        FollowFit(interval=2).update(scale, good, done, torch.tensor(finite))
        seen.append((float(scale), int(good), int(done)))
    assert seen == [
        *((8.0, 1, 1), (4.0, 0, 1), (4.0, 1, 2), (8.0, 0, 3)),
        *((8.0, 1, 4), (16.0, 0, 5), (8.0, 0, 5), (4.0, 0, 5)),
    ]
    scale.fill_(2.0**127)
    FollowFit(interval=1).update(scale, good, done, torch.tensor(True))
    assert float(scale) == 2.0**127  # the last power of 2 in float32


@pytest.mark.parametrize("by", ["each", "a kernel that skips", "a kernel that does not"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_with_a_gradient_that_is_not_finite_changes_the_scale_alone(
    bad: float, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered, skips = by != "each", by == "a kernel that skips"
    monkeypatch.setattr(multi_tensor.FusedAdam, "skips", skips)
    if gathered:
        monkeypatch.setattr(multi_tensor, "DEVICES", {"cpu", "cuda"})
    program = compiled(Adam(), clip_grad_norm=1.0, ema=0.9, accumulate=2)
    rules = [s.call.layer for s in program.plan.steps if isinstance(s.call.layer, IfFinite)]
    assert len(rules) == {"each": 4, "a kernel that does not": 1}.get(by, 0)
    assert all(isinstance(rule.rule, MultiTensorKernel) is gathered for rule in rules)
    for step in range(4):
        program.step(*pair(step))
    before = state(program)
    x, target = pair(4)
    target[0, 0, 0, 0] = bad
    program.step(x, target)
    program.step(*pair(5))
    after = state(program)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    averages = {name for name in after if name.endswith(":@ema")}
    assert moved - averages == {SCALE, GOOD}  # averages go on towards the weights
    assert (float(after[SCALE]), int(after[GOOD]), int(after[DONE])) == (2.0**15, 0, 2)
    for step in range(6, 8):
        program.step(*pair(step))
    assert int(program.optimizer_state[DONE]) == 3
    assert all(not torch.equal(program.weights[n], before[n]) for n in program.weights)


def test_a_run_goes_on_with_its_scale() -> None:
    whole, first, second = (compiled(Adam()) for _ in range(3))
    for step in range(3):
        whole.step(*pair(step))
    first.step(*pair(0))
    second = Model(first.description, weights=first.model_weights).compile(
        SHAPE, optimizer=Adam(), loss="mse", precision="float16", device="cpu"
    )
    second.restore(first.training_state, steps_done=1)
    for step in range(1, 3):
        second.step(*pair(step))
    assert all(torch.equal(tensor, state(second)[name]) for name, tensor in state(whole).items())
    assert int(second.optimizer_state[GOOD]) == 3


def test_only_a_training_in_float16_has_a_scale() -> None:
    model = Model(SMALL)
    plans = {
        precision: model.plan(SHAPE, loss="mse", optimizer=SGD(lr=1.0), precision=precision)
        for precision in ("float32", "bfloat16", "float16")
    }
    own = {"@loss:finite", "@loss:inverse", f"{SCALE}:update", "conv2d_1.weight:unscale"}
    assert own < names(plans["float16"])
    assert not own & (names(plans["bfloat16"]) | names(plans["float32"]))
    assert SCALE not in model.plan(SHAPE, precision="float16").values
    assert SCALE not in model.plan(SHAPE, loss="mse", precision="float16").values
    bare = Model({"layers": ["relu"]})
    bare.compile(SHAPE, loss="mse", optimizer=SGD(lr=1.0), precision="float16").step(*pair(0))


def too_large(step: int, *where: int) -> tuple[Tensor, Tensor]:
    """A pair, in these steps with a loss whose gradients, times the scale, float16 cannot hold."""
    x, target = pair(step)
    return x, target * (1e5 if step in where else 1.0)


def test_replayed_steps_equal_eager_skipped_ones_too() -> None:
    mine, theirs = (compiled(Adam(), executor=executor) for executor in ("eager", OnTheCPU()))
    captured = []
    for step in range(4):
        batch = too_large(step, 0, 2)
        assert torch.equal(mine.step(*batch), theirs.step(*batch))
        captured.append(theirs.accumulation.record()["captured"])
    assert captured == [False, True, True, True]  # a skipped step would say nothing of the updates
    assert (mine.loss_scale, int(mine.optimizer_state[DONE])) == (2.0**14, 2)
    assert all(torch.equal(state(theirs)[name], tensor) for name, tensor in state(mine).items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_plan_equals_eager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
    auto = {"auto": {"switch_after": 1}}
    one = {**SMALL, "layers": SMALL["layers"][2:]}  # compiled in a third of the time
    mine, theirs = (compiled(Adam(), model=one, executor=executor) for executor in ("eager", auto))
    for step in range(5):
        batch = too_large(step, 0, 3)
        torch.testing.assert_close(mine.step(*batch), theirs.step(*batch), rtol=1e-2, atol=0)
    switched = theirs.accumulation.record()["switched_after"]
    assert switched == 2  # not by the first step, which was skipped
    assert int(mine.optimizer_state[DONE]) == 3
    for name, tensor in state(mine).items():
        torch.testing.assert_close(state(theirs)[name], tensor, rtol=1e-2, atol=1e-5)


def test_the_plan_is_shown_searched_and_written_as_a_file() -> None:
    plan = Model(SEED).plan(SHAPE, loss="mse", optimizer=Adam(), precision="float16")
    assert "adam, if finite" in gn.explain(plan)
    given = random_arguments(plan, seed=0)
    found, expected = ({n: t.clone() for n, t in given.items()} for _ in range(2))
    module: dict[str, Any] = {"__name__": "plan"}
    exec(gn.source(plan), module)
    with torch.no_grad():
        (loss,) = module["step"](*found.values())
        assert torch.equal(loss, prepare(plan, "reference")(*expected.values())[0])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    given["$input"][2] = float("nan")
    cause = first_nonfinite(plan, complete(plan, given))
    assert cause is not None
    assert "'input'" in str(cause)


def test_a_training_file_says_float16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", str(SEED_FILE), "--input", "2x3x8x8", "--training"]
    assert run([*arguments, "--precision", "float16"]) == 0
    shown = capsys.readouterr().out
    assert " f16" in shown
    assert run([*arguments, "--precision", "float8"]) == 2
    assert "bfloat16 or float16 over float32" in capsys.readouterr().err


SEED_FILE = Path(__file__).parents[2] / "examples" / "denoisers" / "seed.yaml"


class Root(Layer):
    """The square root, whose gradient at 0 is infinite."""

    precision: ClassVar[Precision] = "follow"

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().sqrt()

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return grad_y / (2 * x.relu().sqrt())


class Factored(Optimizer):
    """Asks for eigenvalues, which NaN has none of."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> None:
        rows = grad.reshape(grad.shape[0], -1)
        largest = torch.linalg.eigvalsh(rows @ rows.t())[-1]
        parameter.sub_(lr * grad / (largest + 1.0))


class Plugin:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("test/root", Root)


def test_an_optimizer_never_sees_gradients_that_are_not_finite() -> None:
    program = compiled(Factored(lr=0.1))
    for step in range(3):
        program.step(*too_large(step, 1))
    assert (program.updates_done, program.loss_scale) == (2, 2.0**15)


def test_an_overflow_of_gradients_that_are_added_up_is_passed_over() -> None:
    mine, theirs = (
        compiled(Adam(), executor=executor, accumulate=2) for executor in ("eager", OnTheCPU())
    )
    for step in range(6):
        batch = too_large(step, 0, 1)
        plan, given = mine.next_plan, mine.arguments(*batch)
        assert first_nonfinite(plan, given) is None
        assert (first_nonfinite(plan, given, gradients=True) is None) is (step > 1)
        assert torch.equal(mine.step(*batch), theirs.step(*batch))
    assert all(
        run.run.record()["captured"]
        for run in (theirs.accumulation.updating, theirs.accumulation.adding)
    )
    assert all(torch.equal(state(theirs)[name], tensor) for name, tensor in state(mine).items())
    batch[0][2] = float("nan")
    cause = first_nonfinite(mine.next_plan, mine.arguments(*batch))
    assert cause is not None
    assert cause.value == "$input"


def test_the_layer_whose_gradient_is_never_finite_is_found() -> None:
    registry = load_registry(plugins=[Plugin()], entry_points=False)
    layers = [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, {"id": "root", "test/root": {}}]
    model = Model({"input": {"channels": 3}, "layers": layers}, registry=registry)
    program = model.compile(
        SHAPE, loss="mse", optimizer=SGD(lr=0.1), precision="float16", device="cpu"
    )
    plan, given = program.plan, program.arguments(*pair(0))
    assert first_nonfinite(plan, given) is None
    cause = first_nonfinite(plan, given, registry=registry, gradients=True)
    assert cause is not None
    assert cause.call is not None
    assert cause.call.node == "root"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_shown_without_the_scale(accumulate: int) -> None:
    norms = []
    for precision in ("float32", "float16"):
        program = compiled(SGD(lr=0.1), precision=precision, accumulate=accumulate)
        seen = Gradients(program.next_plan, program.arguments(*pair(0)))
        norms.append([row.gradient_norm for row in seen.parameters])
        (path,) = seen.paths("conv2d_1.weight").paths
        assert path.norm == pytest.approx(norms[-1][0])
        assert path.nodes[-1] == "@loss"
        assert path.nodes.count("@loss") == 1
    assert norms[1] == pytest.approx(norms[0], rel=0.01)


def test_sums_over_many_pixels_are_finite_in_attention() -> None:
    layers = [
        {"conv2d": {"out_channels": 12, "kernel_size": 1}},
        {"transposed_attention": {"num_heads": 1}},
    ]
    model = Model({"input": {"channels": 4}, "layers": layers})
    x = 100 * torch.rand((1, 4, 64, 64), generator=torch.Generator().manual_seed(0))
    exact, narrow = (model.predict(x, precision=p) for p in ("float32", "float16"))
    torch.testing.assert_close(narrow, exact, rtol=1e-2, atol=1e-1)
