"""The cudagraph executor: what it does around a recording, by one made on the CPU; and on CUDA itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.builtin import Adam
from graphnet.errors import CompileError
from graphnet.executors import CUDAGraph, CUDARecording, Eager
from graphnet.executors.cudagraph import Outputs, Recording, Replayed
from graphnet.model import Model, Program, join_processes
from graphnet.passes import MicroBatches
from graphnet.plan import Plan
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

SHAPE = (4, 3, 8, 8)


class Again(Recording):
    """Does the function again, into the results of the first time: what a CUDA graph does."""

    made = 0

    def __init__(self, function: Callable[[], Outputs]) -> None:
        type(self).made += 1
        self.function = function
        self.outputs: Outputs = ()

    def replay(self) -> Outputs:
        outputs = self.function()
        if not self.outputs:
            self.outputs = tuple(output.clone() for output in outputs)
        for place, output in zip(self.outputs, outputs, strict=True):
            place.copy_(output)
        return self.outputs


class Wrong(Again):
    """Replays with results that are a little too large."""

    def replay(self) -> Outputs:
        return tuple(output.mul_(1.01) for output in super().replay())


class Failing(Again):
    """Cannot record what reads a number back to Python, say."""

    def __init__(self, function: Callable[[], Outputs]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


class Strict(Again):
    """Refuses, while it records, what waits for the device, as CUDA does."""

    recording: ClassVar[bool] = False

    def __init__(self, function: Callable[[], Outputs]) -> None:
        Strict.recording = True
        try:
            function()
        finally:
            Strict.recording = False
        super().__init__(function)


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


class OnTheCPU(CUDAGraph):
    """The executor with a recording that any machine can make."""

    recording: str = "Again"

    def prepare(self, plan: Plan) -> Run:
        kinds: dict[str, type[Recording]] = {
            kind.__name__: kind for kind in (Again, Wrong, Failing, Strict)
        }
        return Replayed(plan, Eager().prepare(plan), record=kinds[self.recording])


def program(executor: object) -> Program:
    return Model(SEED).compile(
        SHAPE,
        loss="mse",
        optimizer=Adam(lr=1e-3),
        device="cpu",
        dtype=torch.float64,
        executor=executor,
    )


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
    assert mine.accumulation.record() == {"captured": True, "stayed": None}


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
    assert fine.accumulation.record() == {"captured": True, "stayed": None}


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
