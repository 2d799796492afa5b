"""The cudagraph executor: what it does around a recording, by one made on the CPU; and on CUDA itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphnet.errors import CompileError
from graphnet.executors.cudagraph import CUDAGraph, Outputs, Recording, Replayed
from graphnet.executors.eager import Eager
from graphnet.executors.executor import Run
from graphnet.model import Model
from graphnet.optim import Adam
from graphnet.plan import Plan
from graphnet.program import Program
from tests.layers.oracle import random_tensor
from tests.models import SEED

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


class OnTheCPU(CUDAGraph):
    """The executor with a recording that any machine can make."""

    recording: str = "Again"

    def prepare(self, plan: Plan) -> Run:
        kinds: dict[str, type[Recording]] = {"Again": Again, "Wrong": Wrong, "Failing": Failing}
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
    (event,) = mine.turns.events()
    assert event.kind == "captured"
    assert "agrees with eager on this step" in event.message
    assert mine.turns.record() == {"captured": True, "stayed": None}


def test_a_replay_that_does_something_else_is_not_trusted() -> None:
    mine, theirs = program(OnTheCPU(recording="Wrong")), program("eager")
    for seed in range(3):
        assert torch.equal(*(one.step(*batch(seed)) for one in (mine, theirs)))
    for name, weight in mine.weights.items():
        assert torch.equal(weight, theirs.weights[name])
    (event,) = mine.turns.events()
    assert event.kind == "stayed"
    assert "does not agree with eager" in event.message


def test_what_cannot_be_captured_stays_on_eager_and_says_why() -> None:
    mine, theirs = program(OnTheCPU(recording="Failing")), program("eager")
    for seed in range(3):
        assert torch.equal(*(one.step(*batch(seed)) for one in (mine, theirs)))
    (event,) = mine.turns.events()
    assert "cannot be captured: operation not permitted" in event.message
    assert mine.turns.record()["captured"] is False


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
    with pytest.raises(CompileError, match="captures what runs on CUDA, but this plan is for cpu"):
        Model(SEED).compile(SHAPE, loss="mse", optimizer=Adam(), device="cpu", executor="cudagraph")


@pytest.mark.parametrize("captures", ["eager", "inductor"])
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: CUDA graphs are made on one"
)
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
    for name, weight in mine.weights.items():
        torch.testing.assert_close(weight, theirs.weights[name], rtol=1e-3, atol=1e-5)
    assert mine.turns.record()["captured"] is True
