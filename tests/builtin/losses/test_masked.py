"""masked_mse against torch, by hand, and in a training step, where the mask is an input of the plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.builtin.losses.masked import MaskedMSE
from graphnet.errors import GraphError, InputError
from graphnet.model import Model
from tests.support.oracle import STRIDES, random_tensor, relative_error


def torch_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """torch has no such loss: the mean over the pixels that a mask of 0 and 1 picks."""
    picked = mask.bool()
    return torch.nn.functional.mse_loss(prediction[picked], target[picked])


def gradient(
    prediction: Tensor, target: Tensor, mask: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    loss, difference, total = MaskedMSE().forward(prediction, target, mask)
    grad_prediction, *none = MaskedMSE().backward(grad, difference, total)
    assert none == [None, None]
    return loss, grad_prediction


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("strides", STRIDES)
def test_value_and_gradient_equal_torch(
    strides: str, dtype: torch.dtype, device: torch.device
) -> None:
    prediction = random_tensor((2, 3, 4, 5), seed=1, strides=strides, dtype=dtype, device=device)
    target = random_tensor((2, 3, 4, 5), seed=2, dtype=dtype, device=device)
    mask = (random_tensor((2, 3, 4, 5), seed=3, dtype=dtype, device=device) > 1).to(dtype)
    assert 0 < mask.sum() < mask.numel()
    grad_loss = torch.tensor(0.7, dtype=dtype, device=device)
    leaf = prediction.clone().requires_grad_()
    expected = torch_loss(leaf, target, mask)
    (true,) = torch.autograd.grad(expected, leaf, grad_loss)
    loss, grad = gradient(prediction, target, mask, grad_loss)
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    assert relative_error(loss, expected.detach()) <= bound
    assert relative_error(grad, true) <= bound


def test_worked_example_counts_by_the_mask() -> None:
    prediction, target = torch.tensor([1.0, 2.0, 5.0]), torch.zeros(3)
    # (1 * 1 + 2 * 4) / 3, and 2 mask difference / 3
    loss, grad = gradient(prediction, target, torch.tensor([1.0, 2.0, 0.0]), torch.tensor(1.0))
    assert loss.item() == 3.0
    torch.testing.assert_close(grad, torch.tensor([2 / 3, 8 / 3, 0.0]))


def test_an_empty_mask_gives_neither_loss_nor_gradient() -> None:
    loss, grad = gradient(torch.ones(3), torch.zeros(3), torch.zeros(3), torch.tensor(1.0))
    assert loss.item() == 0
    assert grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("wrong", ["target", "mask"])
def test_masked_mse_refuses_inputs_of_different_shapes(wrong: str) -> None:
    shapes = {"prediction": (2, 3), "target": (2, 3), "mask": (2, 3), wrong: (2, 1)}
    message = rf"expected a {wrong} of the prediction's shape \(2, 3\), got \(2, 1\)"
    with pytest.raises(GraphError, match=message):
        MaskedMSE().forward(**{name: torch.zeros(shape) for name, shape in shapes.items()})


CONV = {"conv2d": {"out_channels": 3, "kernel_size": 2, "stride": 2}}


def test_a_step_takes_the_mask_after_the_target() -> None:
    """Pixels outside the mask leave no trace: only those of the left half are learned from."""
    model = Model({"layers": [{"id": "c", **CONV}]})
    program = model.compile(
        (4, 3, 8, 8), loss="masked_mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu"
    )
    assert program.plan.inputs == ("$input", "@target", "@mask")
    assert "def step(x, target, mask, lr" in gn.source(program.plan)
    x, target = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 4, 4)
    mask = torch.zeros(4, 3, 4, 4)
    mask[..., :2] = 1
    weight, bias = (
        program.weights[f"c.{name}"].clone().requires_grad_() for name in ("weight", "bias")
    )
    y = torch.nn.functional.conv2d(x, weight, bias, 2)
    loss = torch_loss(y, target, mask)
    grads = torch.autograd.grad(loss, (weight, bias))
    torch.testing.assert_close(program.step(x, target, mask), loss.detach())
    for name, before, grad in zip(("weight", "bias"), (weight, bias), grads, strict=True):
        torch.testing.assert_close(program.weights[f"c.{name}"], before.detach() - 0.1 * grad)
    with pytest.raises(InputError, match=r"expected 3 tensors \(input, target, mask\), got 2"):
        program.step(x, target)


def test_losses_on_several_outputs_have_a_mask_each() -> None:
    layers = [{"id": "a", **CONV, "inputs": ["$input"]}, {"id": "b", **CONV, "inputs": ["$input"]}]
    model = Model({"layers": layers, "outputs": ["a", "b"]})
    plan = model.plan((1, 3, 8, 8), loss={"a": "mse", "b": "masked_mse"})
    assert plan.inputs == ("$input", "@target.a", "@target.b", "@mask.b")
