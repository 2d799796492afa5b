"""mse, both kernels, against torch, central differences and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.kernels.aten import AtenMSE
from graphnet.layer import Layer, Loss
from graphnet.layers.loss import MSE
from graphnet.observe import as_tuple
from tests.layers.oracle import STRIDES, central_differences, random_tensor, relative_error

both = pytest.mark.parametrize("layer", [MSE(), AtenMSE()], ids=["reference", "aten"])


def forward(layer: Layer, prediction: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = as_tuple(layer.forward(prediction, target))[0]
    return loss


def backward(
    layer: Layer, grad_loss: Tensor, prediction: Tensor, target: Tensor
) -> tuple[Tensor, Tensor | None]:
    loss, *saved = as_tuple(layer.forward(prediction, target))
    named = {
        "grad_loss": grad_loss,
        "prediction": prediction,
        "target": target,
        "loss": loss,
        **dict(zip(layer.saves, saved, strict=True)),
    }
    grads: tuple[Tensor, Tensor | None] = layer.backward(
        **{name: named[name] for name in layer.signature.backward}
    )
    return grads


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 1, 1), (3, 2, 5, 7)])
def test_value_and_gradient_equal_torch(
    layer: Layer, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    prediction = random_tensor(shape, seed=1, dtype=dtype, device=device)
    target = random_tensor(shape, seed=2, dtype=dtype, device=device)
    grad_loss = torch.tensor(0.7, dtype=dtype, device=device)
    kept = prediction.clone(), target.clone(), grad_loss.clone()
    leaf = prediction.clone().requires_grad_()
    loss = torch.nn.functional.mse_loss(leaf, target)
    (true,) = torch.autograd.grad(loss, leaf, grad_loss)
    assert relative_error(forward(layer, prediction, target), loss.detach()) <= bound
    grad, none = backward(layer, grad_loss, prediction, target)
    assert relative_error(grad, true) <= bound
    assert none is None
    assert torch.equal(prediction, kept[0])
    assert torch.equal(target, kept[1])
    assert torch.equal(grad_loss, kept[2])


@both
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(layer: Layer, strides: str, device: torch.device) -> None:
    prediction = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    target = random_tensor((2, 3, 4, 5), seed=2, device=device)
    leaf = prediction.clone().requires_grad_()
    loss = torch.nn.functional.mse_loss(leaf, target)
    (true,) = torch.autograd.grad(loss, leaf)
    assert relative_error(forward(layer, prediction, target), loss.detach()) <= 1e-14
    grad, _ = backward(layer, torch.ones_like(loss.detach()), prediction, target)
    assert relative_error(grad, true) <= 1e-14


@both
def test_worked_example_is_the_mean_over_all_elements_channels_included(
    layer: Layer, device: torch.device
) -> None:
    # 1 image, 2 channels, 1x2 pixels:  (1 + 4 + 9 + 16) / 4,  2 / 4 of each difference
    prediction = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], device=device)
    target = torch.zeros_like(prediction)
    assert forward(layer, prediction, target).shape == ()
    assert forward(layer, prediction, target).item() == 7.5
    grad, none = backward(layer, torch.tensor(1.0, device=device), prediction, target)
    assert grad.tolist() == [[[[0.5, 1.0]], [[1.5, 2.0]]]]
    assert none is None
    grad, _ = backward(layer, torch.tensor(-2.0, device=device), prediction, target)
    assert grad.tolist() == [[[[-1.0, -2.0]], [[-3.0, -4.0]]]]


@both
def test_gradient_equals_central_differences(layer: Layer, device: torch.device) -> None:
    prediction = random_tensor((2, 2, 3, 2), seed=1, device=device)
    target = random_tensor((2, 2, 3, 2), seed=2, device=device)
    grad_loss = torch.tensor(1.5, dtype=torch.float64, device=device)
    numeric = central_differences(lambda x: forward(layer, x, target), prediction, grad_loss)
    grad, _ = backward(layer, grad_loss, prediction, target)
    assert relative_error(grad, numeric) <= 1e-8


@both
def test_the_target_gets_no_gradient(layer: Layer) -> None:
    assert layer.nondifferentiable == ("target",)
    assert layer.outputs == ("loss",)
    assert isinstance(MSE(), Loss)


def test_a_target_of_another_shape_is_an_error() -> None:
    message = r"expected a target of the prediction's shape \(2, 3\), got \(1, 3\)"
    with pytest.raises(GraphError, match=message):
        MSE().forward(torch.zeros(2, 3), torch.zeros(1, 3))
