"""Together: one call for the updates of all parameters, which changes them as one call each does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet import compiler
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.optim import SGD, Adam, AdamW, Optimizer
from graphnet.optimizers.muon import Muon
from graphnet.passes.together import together
from graphnet.program import Program
from tests.layers.oracle import random_tensor
from tests.models import SEED

SHAPE = (4, 3, 8, 8)
RULES: dict[str, Optimizer] = {
    "sgd": SGD(lr=0.5),
    "momentum": SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "dampening": SGD(lr=0.1, momentum=0.9, dampening=0.5),
    "adam": Adam(lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9)),
    "adamw": AdamW(lr=1e-2, weight_decay=0.1),
}


class Ascent(Adam):
    """Inherits `update_many`, which does not do what it does."""

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        return -grad


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass gathers updates on the CPU too."""
    monkeypatch.setattr(compiler, "together", partial(together, devices=("cpu", "cuda")))


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
def test_steps_are_those_of_one_update_each(name: str, executor: str) -> None:
    mine = program(RULES[name], executor=executor)
    theirs = program(RULES[name], without=["together"])
    assert len(updates(mine)) == 1
    assert len(updates(theirs)) == len(theirs.weights)
    for seed in range(4):
        losses = [one.step(*batch(seed)) for one in (mine, theirs)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for slot, tensor in (mine.weights | mine.optimizer_state).items():
        expected = (theirs.weights | theirs.optimizer_state)[slot]
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("on_cpu")
def test_averages_and_scales_and_clipping_go_with_it() -> None:
    options: dict[str, Any] = {
        "ema": 0.9,
        "clip_grad_norm": 1.0,
        "parameters": [{"match": "*.bias", "weight_decay": 0.0}],
    }
    rule = AdamW(lr=1e-2, weight_decay=0.1)
    mine, theirs = program(rule, **options), program(rule, without=["together"], **options)
    gathered = [name for name in updates(mine) if name.startswith("adamw:")]
    assert len(gathered) == 2  # with and without decay
    for seed in range(3):
        for one in (mine, theirs):
            one.step(*batch(seed))
    for name, average in mine.averages.items():
        torch.testing.assert_close(average, theirs.averages[name], rtol=1e-5, atol=1e-6)


def test_on_a_cpu_and_for_other_rules_and_dtypes_updates_stay_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(updates(program(RULES["adam"]))) == 8
    gathers: Callable[..., Any] = partial(together, devices=("cpu",))
    monkeypatch.setattr(compiler, "together", gathers)
    assert len(updates(program(Muon(lr=0.1)))) == 4 + 1  # weights apart, biases by adamw
    assert len(updates(program(Ascent(lr=0.1)))) == 8
    assert len(updates(program(RULES["adam"], dtype=torch.float64))) == 8


@pytest.mark.usefixtures("on_cpu")
def test_the_plan_runs_as_a_file_and_is_verified() -> None:
    made = program(RULES["adam"])
    text = made.plan.source()
    assert "adam.update_many" in text
    namespace: dict[str, Any] = {"__name__": "plan"}
    exec(compile(text, "plan.py", "exec"), namespace)
    arguments = made.arguments(*batch(0))
    copies = {name: tensor.clone() for name, tensor in arguments.items()}
    (loss,) = namespace["step"](*copies.values())
    assert torch.equal(loss, made.step(*batch(0)))
    for name, weight in made.weights.items():
        assert torch.equal(copies[name], weight)
