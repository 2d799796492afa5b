"""A step reports each loss of a sum, and the norm of the gradients, as torch has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.errors import DescriptionError
from graphnet.model import Model, Program

SHAPE = (2, 3, 6, 6)
NETWORK = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}, "id": "a"},
        {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "b"},
    ],
    "outputs": ["a", "b"],
}
LOSSES: dict[str, Any] = {"a": [{"mse": {}}, {"mse": {}, "weight": 0.5}], "b": "l1"}


def drawn(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(3)]


def program(**options: Any) -> Program:
    return Model(NETWORK).compile(
        SHAPE,
        loss=LOSSES,
        optimizer={"sgd": {"lr": 0.01}},
        device="cpu",
        **{"dtype": torch.float64, "report": ("losses", "gradient_norm"), **options},
    )


def by_torch(made: Program, x: Tensor, *targets: Tensor) -> tuple[list[Tensor], Tensor]:
    w = {name: tensor.detach().clone().requires_grad_() for name, tensor in made.weights.items()}
    a = torch.conv2d(x, w["a.weight"], w["a.bias"], padding=1)
    b = torch.conv2d(a, w["b.weight"], w["b.bias"])
    mse = (a - targets[0]).square().mean()
    l1 = (b - targets[1]).abs().mean()
    (mse + 0.5 * mse + l1).backward()
    grads = torch.cat([t.grad.flatten() for t in w.values() if t.grad is not None])
    return [mse.detach(), mse.detach(), l1.detach()], grads.norm()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_grad_norm": 0.01},
        {"kernels": "reference"},
        {"executor": "reference"},
        {"memory": "100%"},
        pytest.param({"executor": "inductor"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_losses_and_the_norm_are_those_of_torch(options: dict[str, Any]) -> None:
    made = program(**options)
    for step in range(2):
        tensors = drawn(step)
        losses, norm = by_torch(made, *tensors)
        loss = made.step(*tensors)
        assert list(made.report) == ["a.mse", "a.mse#2", "b.l1", "gradient_norm"]
        *found, found_norm = made.report.values()
        torch.testing.assert_close(found, losses, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found_norm, norm, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(loss, losses[0] * 1.5 + losses[2], rtol=1e-10, atol=1e-12)


def test_the_norm_in_float16_is_that_of_the_unscaled_gradients() -> None:
    made = program(dtype=torch.float32, precision="float16")
    tensors = [tensor.float() for tensor in drawn(0)]
    _, norm = by_torch(made, *tensors)
    made.step(*tensors)
    torch.testing.assert_close(made.report["gradient_norm"], norm, rtol=1e-2, atol=1e-3)


def test_steps_that_only_add_gradients_report_their_losses() -> None:
    made = program(accumulate=2)
    first, second = drawn(0), drawn(1)
    made.step(*first)
    assert list(made.report) == ["a.mse", "a.mse#2", "b.l1"]
    grads = []
    for tensors in (first, second):
        w = {n: t.detach().clone().requires_grad_() for n, t in made.weights.items()}
        a = torch.conv2d(tensors[0], w["a.weight"], w["a.bias"], padding=1)
        b = torch.conv2d(a, w["b.weight"], w["b.bias"])
        total = 1.5 * (a - tensors[1]).square().mean() + (b - tensors[2]).abs().mean()
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, list(w.values()))]))
    made.step(*second)
    expected = (sum(grads) / 2).norm()  # type: ignore[union-attr]
    torch.testing.assert_close(made.report["gradient_norm"], expected, rtol=1e-10, atol=1e-12)


def test_nothing_is_reported_unless_it_is_asked_for() -> None:
    made = program(report=())
    made.step(*drawn(0))
    assert made.report == {}
    assert len(made.plan.outputs) == 1
    with pytest.raises(DescriptionError, match=r"report.*'losses' or 'gradient_norm'"):
        program(report=("loss",))
