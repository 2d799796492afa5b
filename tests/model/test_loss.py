"""Program.loss: the loss of a prediction, on any shape, without a training step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import graphnet as gn

NET = {
    "input": {"channels": 1},
    "layers": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "batch_norm2d",
        "relu",
        {"dropout": {"p": 0.5}},
        {"conv2d": {"out_channels": 1, "kernel_size": 1}},
    ],
}
X, Y = torch.rand(2, 5, 1, 9, 7, generator=torch.Generator().manual_seed(0))


def trained(**settings: Any) -> gn.Program:
    model = gn.Model(NET)
    program = model.compile((2, 1, 8, 8), optimizer="adam", device="cpu", **settings)
    for _ in range(2):
        program.step(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8))
    return program


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9}, {"precision": "bfloat16"}, {"memory": "1GiB"}]
)
def test_loss_is_that_of_the_prediction_in_torch(settings: dict[str, Any]) -> None:
    losses = ["mse", {"huber": {"delta": 0.1}, "weight": 0.25}]
    program = trained(loss=losses, **settings)
    before = {name: tensor.clone() for name, tensor in program.weights.items()}
    y = program.predict(X)
    expected = functional.mse_loss(y, Y) + 0.25 * functional.huber_loss(y, Y, delta=0.1)
    torch.testing.assert_close(program.loss(X, Y), expected)
    assert program.steps_done == 2
    assert all(torch.equal(program.weights[name], before[name]) for name in before)


def test_loss_follows_the_weights() -> None:
    program = trained(loss="mse")
    first = program.loss(X, Y)
    program.weights["conv2d_2.weight"].zero_()
    program.weights["conv2d_2.bias"].zero_()
    torch.testing.assert_close(program.loss(X, Y), Y.square().mean())
    assert first != program.loss(X, Y)


def test_a_loss_with_a_mask_takes_it_behind_the_target() -> None:
    program = trained_masked()
    mask = torch.zeros(5, 1, 9, 7)
    mask[:, :, :3] = 1
    y = program.predict(X)
    expected = functional.mse_loss(y[:, :, :3], Y[:, :, :3])
    torch.testing.assert_close(program.loss(X, Y, mask), expected)


def trained_masked() -> gn.Program:
    return gn.Model(NET).compile((2, 1, 8, 8), loss="masked_mse", optimizer="adam", device="cpu")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ((X,), r"expected 2 tensors \(input, target\), got 1"),
        ((X, Y[:4]), "target: expected 5x1x9x7 float32, got 4x1x9x7 float32"),
        ((X, Y.double()), "target: expected 5x1x9x7 float32, got 5x1x9x7 float64"),
        ((X, Y.tolist()), "loss: input 1: expected a tensor, got a list"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors: tuple[Any, ...], message: str) -> None:
    with pytest.raises(gn.errors.InputError, match=message):
        trained(loss="mse").loss(*tensors)
