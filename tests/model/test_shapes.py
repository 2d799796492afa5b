"""Programs for inputs of several shapes train one set of weights, as torch does with batches of any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphnet.model import Model

NETWORK = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}, "id": "a"},
        {"batch_norm2d": {}, "id": "n"},
        {"relu": {}, "id": "r"},
        {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "b"},
    ],
}
SHAPES = [(4, 3, 6, 6), (4, 3, 6, 6), (1, 3, 6, 6), (2, 3, 5, 8), (4, 3, 6, 6), (1, 3, 6, 6)]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(2, *SHAPES[step], generator=generator, dtype=torch.float64)
    return x, y


def by_torch() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)
    return nn.Sequential(*layers).double()


def named(module: nn.Sequential) -> dict[str, Tensor]:
    found = {}
    for name, index in {"a": 0, "n": 1, "b": 3}.items():
        state = module[index].state_dict()
        found |= {f"{name}.{k}": t.clone() for k, t in state.items() if "tracked" not in k}
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema": 0.9},
        {"executor": "reference"},
        pytest.param({"executor": "inductor"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_batches_of_several_shapes_train_as_in_torch(options: dict[str, Any]) -> None:
    module = by_torch()
    model = Model(NETWORK, weights=named(module))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    first = model.compile(
        SHAPES[0],
        loss="mse",
        optimizer={"sgd": {"lr": 0.05, "momentum": 0.9}},
        device="cpu",
        **{"dtype": torch.float64, **options},
    )
    programs = {SHAPES[0]: first}
    for step, shape in enumerate(SHAPES):
        if shape not in programs:
            programs[shape] = programs[SHAPES[step - 1]].with_shapes(shape)
        program = programs[shape]
        first.lr = optimizer.param_groups[0]["lr"] = 0.05 / (1 + step)
        assert program.lr == first.lr
        optimizer.zero_grad()
        expected = nn.functional.mse_loss(module(batch(step)[0]), batch(step)[1])
        expected.backward()
        optimizer.step()
        loss = program.step(*batch(step))
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-10)
        assert {one.steps_done for one in programs.values()} == {step + 1}
    for name, tensor in named(module).items():
        torch.testing.assert_close(first.weights[name], tensor, rtol=1e-8, atol=1e-9)
    x = batch(0)[0]
    assert torch.equal(first.predict(x), programs[SHAPES[3]].predict(x))


def test_gradients_of_several_shapes_are_accumulated() -> None:
    model = Model({"layers": [{"linear": {"out_features": 1, "bias": False}}]}, seed=1)
    first = model.compile(
        (4, 3), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu", accumulate=2
    )
    second = first.with_shapes((2, 3))
    weight = first.weights["linear_1.weight"].clone().requires_grad_()
    a, b = torch.randn(4, 3), torch.randn(2, 3)
    total = sum((x @ weight.T - 1).square().mean() for x in (a, b)) / 2
    (gradient,) = torch.autograd.grad(total, weight)  # type: ignore[arg-type]
    first.step(a, torch.ones(4, 1))
    second.step(b, torch.ones(2, 1))
    torch.testing.assert_close(first.weights["linear_1.weight"], (weight - gradient).detach())
