"""The cudagraph executor: what it does around a recording, by one made on the CPU; and on CUDA itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.builtin import Adam
from graphnet.errors import CompileError, InputError, LayerError
from graphnet.executors import CUDARecording, Eager
from graphnet.executors.compare import disagreement
from graphnet.executors.cudagraph import Replayed, steps_together
from graphnet.executors.recording import Outputs
from graphnet.model import Model, Program, join_processes
from graphnet.passes import MicroBatches
from graphnet.sdk import (
    Executor,
    Layer,
    Make,
    Processes,
    Register,
    Run,
    as_given,
    hookimpl,
    load_registry,
)
from tests.passes.test_micro_batches import plan_of, tensors_of
from tests.support.models import SEED
from tests.support.oracle import random_tensor
from tests.support.processes import in_processes
from tests.support.recordings import Again, Failing, OnTheCPU, SecondFails, Strict

SHAPE = (4, 3, 8, 8)


class Peeks(Layer):
    """x, after a look at one of its numbers from Python."""

    def forward(self, x: Tensor) -> Tensor:
        if Strict.recording:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        if not x.is_meta:  # nothing is observed of it when the graph is built
            x.amax().item()
        return x.clone()

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class Peeking:
    """The plugin with that layer."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/peeks", Peeks)


PEEKS: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, "acme/peeks", "sigmoid"],
}


def peeking(executor: object, device: str) -> Program:
    registry = load_registry(plugins=[Peeking()])
    return Model(PEEKS, registry=registry).compile(
        SHAPE, loss="mse", optimizer=Adam(lr=1e-3), device=device, executor=executor
    )


def program(executor: object, description: object = SEED, **settings: Any) -> Program:
    usual = {"optimizer": Adam(lr=1e-3), "dtype": torch.float64, "device": "cpu"}
    return Model(description).compile(SHAPE, loss="mse", executor=executor, **{**usual, **settings})


def batch(seed: int) -> tuple[Tensor, Tensor]:
    return random_tensor(SHAPE, seed=seed), random_tensor(SHAPE, seed=seed + 100)


def test_steps_by_replay_are_those_of_eager() -> None:
    mine, theirs = program(OnTheCPU()), program("eager")
    losses = []
    for seed in range(5):
        losses.append([one.step(*batch(seed)) for one in (mine, theirs)])
        for name, weight in mine.weights.items():
            assert torch.equal(weight, theirs.weights[name])
    for (
        found,
        expected,
    ) in losses:  # also those of earlier steps: none was written over by a later one
        assert torch.equal(found, expected)
    (event,) = mine.accumulation.events()
    assert event.kind == "captured"
    assert "agrees with eager on this step" in event.message
    record = {"captured": True, "stayed": None, "one_by_one": None, "steps_at_once": 1}
    assert mine.accumulation.record() == record


def cut(images: Tensor, targets: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    return lambda index: (images[index], targets[index])


def test_batches_are_cut_in_the_recording() -> None:
    """Then a step is given an index; another data set is captured again."""
    mine, theirs = program(OnTheCPU()), program("eager")
    data = mine.pack(*(random_tensor((20, *SHAPE[1:]), seed=seed) for seed in (0, 1)))
    make, before = cut(*data), Again.made
    for number in range(4):
        index = torch.arange(4) * 3 + number
        losses = [one.step_made(make, index) for one in (mine, theirs)]
        assert torch.equal(*losses)
    assert Again.made == before + 1
    assert torch.equal(*(one.step_made(cut(*data[::-1]), index) for one in (mine, theirs)))
    assert torch.equal(*(one.step(*batch(0)) for one in (mine, theirs)))
    assert Again.made == before + 3
    for name, weight in mine.weights.items():
        assert torch.equal(weight, theirs.weights[name])


def test_failed_step_discards_the_old_recording() -> None:
    mine, theirs = program(OnTheCPU()), program("eager")
    data = mine.pack(*(random_tensor((20, *SHAPE[1:]), seed=seed) for seed in (0, 1)))
    first, second, index = cut(*data), cut(*data[::-1]), torch.arange(4)
    assert torch.equal(*(one.step_made(first, index) for one in (mine, theirs)))
    before = Again.made
    with pytest.raises(IndexError):
        mine.step_made(second, index + 50)
    assert torch.equal(*(one.step_made(second, index) for one in (mine, theirs)))
    assert Again.made == before + 1


DROPPING: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        {"batch_norm2d": {}},
        {"dropout": {"p": 0.3}},
        {"conv2d": {"out_channels": 3, "kernel_size": 1}},
    ],
}


class Twin:
    """Two programs that do the same steps: one in groups, and one by eager, step by step."""

    def __init__(self, mine: Program, theirs: Program, samples: int = 40) -> None:
        self.mine, self.theirs = mine, theirs
        data = (random_tensor((samples, *SHAPE[1:]), seed=seed) for seed in (0, 1))
        self.make = cut(*mine.pack(*data))
        self.done = 0

    def steps(self, count: int) -> None:
        """Do so many steps at once, each with its samples and learning rate, and compare everything."""
        steps = range(self.done, self.done + count)
        given = [[torch.arange(4) * 3 + step] for step in steps]
        lrs = [1e-3 * 0.9**step for step in steps]
        found = self.mine.steps_made(self.make, given, lrs=lrs)
        self.done += count
        assert len(found) == count
        for lr, (index,), (loss, reported) in zip(lrs, given, found, strict=True):
            self.theirs.lr = lr
            assert torch.equal(loss, self.theirs.step_made(self.make, index))
            assert reported.keys() == self.theirs.report.keys()
            for name, value in reported.items():
                assert torch.equal(value, self.theirs.report[name])
        self.compare()

    def compare(self) -> None:
        mine, theirs = self.mine, self.theirs
        assert (mine.steps_done, mine.lr) == (theirs.steps_done, theirs.lr)
        for name, tensor in {**theirs.model_weights, **theirs.optimizer_state}.items():
            found = {**mine.model_weights, **mine.optimizer_state}[name]
            assert torch.equal(found, tensor), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0.9, "clip_grad_norm": 0.1, "report": ("losses", "gradient_norm")},
        {"dtype": torch.float32, "precision": "float16", "report": ("gradient_norm",)},
        {"accumulate": 2},
    ],
    ids=str,
)
def test_several_steps_in_one_recording_have_the_bits_of_single_steps(
    settings: dict[str, Any],
) -> None:
    """The random numbers, learning rates, counts and averages of each step too."""
    executor = OnTheCPU(steps=4)
    twin = Twin(program(executor, DROPPING, **settings), program("eager", DROPPING, **settings))
    counts = (4, 4, 1, 3, 4, 4)
    for count in counts:
        twin.steps(count)
    several = 1 if "accumulate" in settings else 4
    record = twin.mine.accumulation.record()
    assert record["captured"] is True
    assert (twin.mine.steps_at_once, record["steps_at_once"]) == (several, several)
    kinds = [event.kind for event in twin.mine.accumulation.events()]
    assert kinds == ["captured"] * 2  # one step, and four; or the two plans that alternate


def test_steps_of_several_recordings_continue_each_other() -> None:
    """A step with other tensors is captured again, and so are several."""
    executor = OnTheCPU(steps=4)
    twin = Twin(program(executor), program("eager"))
    twin.steps(4)
    before, other = Again.made, twin.make
    twin.make = cut(*twin.mine.pack(*(random_tensor((40, *SHAPE[1:]), seed=s) for s in (5, 6))))
    twin.steps(4)
    assert Again.made == before + 2
    twin.make = other
    twin.steps(1)
    twin.steps(4)
    assert Again.made == before + 4
    assert all(event.kind == "captured" for event in twin.mine.accumulation.events())


@pytest.mark.parametrize(
    ("recording", "said"),
    [("WrongTogether", "does not agree with single steps"), ("SecondFails", "cannot be captured")],
)
def test_several_steps_that_cannot_be_replayed_run_one_by_one(recording: str, said: str) -> None:
    SecondFails.made = 0
    executor = OnTheCPU(steps=4, recording=recording)
    twin = Twin(program(executor), program("eager"))
    for _ in range(3):
        twin.steps(4)
    first, second = twin.mine.accumulation.events()
    assert (first.kind, second.kind) == ("captured", "one_by_one")
    assert second.message.startswith("replays steps one by one: ")
    assert said in second.message
    record = twin.mine.accumulation.record()
    assert (record["captured"], record["stayed"], record["steps_at_once"]) == (True, None, 1)
    assert said in record["one_by_one"]


class Fails(Layer):
    """x, until it has been called so often that it fails."""

    calls: ClassVar[int] = 0

    def forward(self, x: Tensor) -> Tensor:
        Fails.calls += not x.is_meta
        if Fails.calls == 5:
            raise ValueError("the fifth call")
        return x.clone()

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class Failable:
    """The plugin with that layer."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/fails", Fails)


def test_a_step_of_several_that_fails_leaves_the_counts_of_those_before_it() -> None:
    """The first step calls the layer three times: by eager, to prepare the recording, and to replay it."""
    Fails.calls = 0
    registry = load_registry(plugins=[Failable()])
    layers = [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, "acme/fails"]
    mine = Model({"input": {"channels": 3}, "layers": layers}, registry=registry).compile(
        *(SHAPE,), loss="mse", optimizer=Adam(lr=1e-3), device="cpu", executor=OnTheCPU(steps=4)
    )
    images = mine.pack(*(tensor.float() for tensor in batch(0)))
    with pytest.raises(LayerError, match="the fifth call"):
        mine.steps_made(lambda: images, [()] * 4, lrs=[0.1, 0.2, 0.3, 0.4])
    assert mine.steps_done == 2
    assert mine.lr == pytest.approx(0.3)  # that of the step that failed


def test_the_same_nan_or_infinity_in_both_runs_is_no_difference() -> None:
    plan = Model(SEED).plan(SHAPE)
    (output,) = (torch.zeros(3, dtype=torch.bfloat16) for _ in plan.outputs)
    odd = torch.tensor([float("nan"), float("inf"), 1.0], dtype=torch.bfloat16)

    def said(found: Tensor) -> str | None:
        return disagreement(plan, {}, expected=([odd], {}), found=([found], {}), limit=1e-3)

    assert said(odd.clone()) is None
    assert said(torch.tensor([float("nan"), -float("inf"), 1.0], dtype=torch.bfloat16)) is not None
    assert said(torch.tensor([float("nan"), float("inf"), 1.5], dtype=torch.bfloat16)) is not None
    assert said(output) is not None


def test_a_small_error_in_several_steps_in_bfloat16_is_seen() -> None:
    """One of 32 updates is 3 % of their change: less than two correct programs may differ by in bfloat16."""
    settings = {"dtype": torch.float32, "precision": "bfloat16"}
    executor = OnTheCPU(steps=4, recording="WrongTogether")  # by 1 %
    twin = Twin(program(executor, **settings), program("eager", **settings))
    for _ in range(3):
        twin.steps(4)
    kinds = [event.kind for event in twin.mine.accumulation.events()]
    assert kinds == ["captured", "one_by_one"]
    assert twin.mine.steps_at_once == 1


def test_several_steps_are_checked_like_single_ones() -> None:
    twin = Twin(program(OnTheCPU(steps=4)), program("eager"))
    twin.steps(4)
    given = [[torch.arange(4)]] * 4
    with pytest.raises(InputError, match=r"lr: expected a number from 0 .* got nan"):
        twin.mine.steps_made(twin.make, given, lrs=[0.1, 0.1, float("nan"), 0.1])
    twin.compare()
    twin.steps(4)


def test_a_long_plan_is_captured_in_fewer_steps() -> None:
    plan = Model(SEED).plan(SHAPE)
    assert steps_together(plan, 32) == 32
    assert steps_together(plan, 10**9) == 4096 // len(plan.steps)
    assert steps_together(plan, 1) == 1
    large = Model(SEED).plan((64, 3, 512, 512))
    assert large.peak_bytes > 256 * 2**20
    assert steps_together(large, 32) == 1
    with_others = plan_of(MicroBatches(1, 2), processes=Processes(2, ("all",)))
    assert steps_together(with_others, 32) == 1


def test_replay_that_differs_from_eager_is_rejected() -> None:
    mine, theirs = program(OnTheCPU(recording="Wrong")), program("eager")
    for seed in range(3):
        assert torch.equal(*(one.step(*batch(seed)) for one in (mine, theirs)))
    for name, weight in mine.weights.items():
        assert torch.equal(weight, theirs.weights[name])
    (event,) = mine.accumulation.events()
    assert event.kind == "stayed"
    assert "does not agree with eager" in event.message


def test_plan_that_cannot_be_captured_stays_on_eager_with_the_reason() -> None:
    mine, theirs = program(OnTheCPU(recording="Failing")), program("eager")
    for seed in range(3):
        assert torch.equal(*(one.step(*batch(seed)) for one in (mine, theirs)))
    (event,) = mine.accumulation.events()
    assert "cannot be captured: operation not permitted" in event.message
    assert mine.accumulation.record()["captured"] is False


def test_a_layer_that_waits_for_the_device_stays_on_eager_and_is_named() -> None:
    mine, theirs = peeking(OnTheCPU(recording="Strict"), "cpu"), peeking("eager", "cpu")
    for seed in range(3):
        pair = [tensor.float() for tensor in batch(seed)]
        assert torch.equal(*(one.step(*pair) for one in (mine, theirs)))
    (event,) = mine.accumulation.events()
    assert event.kind == "stayed"
    assert "node 'peeks_1' (acme/peeks): forward failed" in event.message
    assert "not permitted when stream is capturing" in event.message


def test_tensors_that_have_moved_are_captured_again() -> None:
    plan = Model(SEED).plan(SHAPE)
    run = OnTheCPU().prepare(plan)
    x = random_tensor(SHAPE, seed=0, dtype=torch.float32)
    weights = [
        random_tensor(plan.values[name].spec.shape, seed=i, dtype=torch.float32)
        for i, name in enumerate(plan.arguments[1:])
    ]
    before = Again.made
    for moved in (weights, weights, [weight.clone() for weight in weights]):
        (found,) = run(x, *moved)
        (expected,) = Eager().prepare(plan)(x, *moved)
        assert torch.equal(found, expected)
    assert Again.made == before + 2
    assert ["again" in event.message for event in run.events()] == [False, True]


def test_a_plan_for_the_cpu_is_refused() -> None:
    with pytest.raises(CompileError, match="runs plans for CUDA, but this plan is for cpu"):
        Model(SEED).compile(SHAPE, loss="mse", optimizer=Adam(), device="cpu", executor="cudagraph")


on_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs are made on one"
)


@pytest.mark.parametrize("captures", ["eager", "inductor"])
@on_cuda
def test_on_cuda_steps_by_replay_are_those_of_eager(captures: str) -> None:
    def made(executor: object) -> Program:
        return Model(SEED).compile(
            SHAPE, loss="mse", optimizer=Adam(lr=1e-3), device="cuda", executor=executor
        )

    mine, theirs = made({"cudagraph": {"captures": captures}}), made("eager")
    for seed in range(5):
        pair = [tensor.float().cuda() for tensor in batch(seed)]
        found, expected = mine.step(*pair), theirs.step(*pair)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    images = (random_tensor((20, *SHAPE[1:]), seed=seed).float().cuda() for seed in (0, 1))
    data = mine.pack(*images)
    make = cut(*data)
    for number in range(3):
        index = torch.arange(4, device="cuda") * 3 + number
        found, expected = (one.step_made(make, index) for one in (mine, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    for name, weight in mine.weights.items():
        torch.testing.assert_close(weight, theirs.weights[name], rtol=1e-3, atol=1e-5)
    assert mine.accumulation.record()["captured"] is True


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@on_cuda
def test_on_cuda_several_steps_in_one_graph_are_those_of_eager(precision: str) -> None:
    settings = {"dtype": torch.float32, "device": "cuda", "precision": precision}
    bound = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}[precision]
    executor = {"cudagraph": {"steps": 4}}
    mine, theirs = (program(one, DROPPING, ema=0.9, **settings) for one in (executor, "eager"))
    data = mine.pack(*(random_tensor((20, *SHAPE[1:]), seed=seed).float() for seed in (0, 1)))
    for make in (cut(*data), cut(*data), cut(*data[::-1])):  # captured, and twice again
        for first in range(3):
            given = [[torch.arange(4, device="cuda") * 3 + first + i] for i in range(4)]
            lrs = [1e-3 * 0.9 ** (first + i) for i in range(4)]
            losses = [
                [loss for loss, _ in one.steps_made(make, given, lrs=lrs)] for one in (mine, theirs)
            ]
            torch.testing.assert_close(*map(torch.stack, losses), rtol=bound, atol=bound)
    for name, weight in {**theirs.weights, **theirs.averages}.items():
        found = {**mine.weights, **mine.averages}[name]
        torch.testing.assert_close(found, weight, rtol=bound, atol=bound)
    record = mine.accumulation.record()
    assert (record["stayed"], record["one_by_one"], record["steps_at_once"]) == (None, None, 4)


@on_cuda
def test_on_cuda_a_plan_is_captured_after_one_that_cannot_be() -> None:
    device = torch.device("cuda")
    pair = [tensor.float().cuda() for tensor in batch(0)]
    waits = peeking("cudagraph", "cuda")
    for _ in range(2):
        waits.step(*pair)
    assert waits.accumulation.record()["captured"] is False
    x = torch.rand(3, device=device)  # random numbers are no longer those of the graph
    with pytest.raises(RuntimeError):
        CUDARecording(lambda: (x * x.sum().item(),), device=device)
    recording = CUDARecording(lambda: (x + 1,), device=device)
    for _ in range(2):
        x += 1
        (found,) = recording.replay()
        assert torch.equal(found, x + 1)
    fine = Model(SEED).compile(
        SHAPE, loss="mse", optimizer=Adam(lr=1e-3), device="cuda", executor="cudagraph"
    )
    fine.step(*pair)
    assert fine.accumulation.record()["captured"] is True


def of_processes(executor: Executor) -> dict[str, Any]:
    """The weights of four steps of several processes, and the number of captures."""
    joined = join_processes()
    made = Model(SEED).compile(
        SHAPE,
        loss="mse",
        optimizer=Adam(lr=1e-3),
        device="cpu",
        dtype=torch.float64,
        executor=executor,
        shard="optimizer",
        processes=joined,
    )
    for number in range(4):
        made.step(*batch(10 * number + joined.rank))
    events = [event.kind for event in made.accumulation.events()]
    return {**made.model_weights, "captured": torch.tensor(events.count("captured"))}


def test_processes_capture_a_step_together() -> None:
    theirs = in_processes(2, of_processes, Eager())
    mine = in_processes(2, of_processes, OnTheCPU())
    for found, expected in zip(mine, theirs, strict=True):
        assert int(found.pop("captured")) == 1
        assert int(expected.pop("captured")) == 0
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name


class Still(Run):
    """Returns a loss, and changes nothing."""

    def __call__(self, *arguments: Tensor) -> Outputs:
        return (torch.zeros(()),)

    def on(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        return self()


def test_a_process_that_cannot_capture_a_step_does_not_go_on_with_another() -> None:
    plan = plan_of(MicroBatches(1, 2), processes=Processes(2, ("all",)))
    run = Replayed(plan, Still(), record=Failing)
    run.eager = Still()
    tensors = tensors_of(plan)
    given = [torch.zeros(plan.values[name].spec.shape) for name in plan.inputs]
    with pytest.raises(CompileError, match=r"not permitted.* Choose the executor eager for all"):
        run.on(as_given, given, [*tensors.values()])
