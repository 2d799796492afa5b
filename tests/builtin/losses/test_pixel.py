"""The losses that compare element by element, against torch, central differences and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphnet.builtin import MSE
from graphnet.builtin.kernels.aten.convolution import AtenMSE
from graphnet.builtin.losses.pixel import L1, PSNR, Charbonnier, DifferenceLoss, Huber
from graphnet.errors import ContractError, DescriptionError, GraphError
from graphnet.graph import as_tuple
from graphnet.sdk import Layer, Loss
from tests.support.oracle import STRIDES, central_differences, random_tensor, relative_error

Oracle = Callable[[Tensor, Tensor], Tensor]


def charbonnier(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2 + 0.2**2).sqrt().mean()


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    errors = torch.stack([F.mse_loss(p, t) for p, t in zip(prediction, target, strict=True)])
    return (10 * torch.log(errors + 1e-8) / math.log(10)).mean()


ALL: dict[str, tuple[Layer, Oracle]] = {
    "mse": (MSE(), F.mse_loss),
    "aten mse": (AtenMSE(), F.mse_loss),
    "l1": (L1(), F.l1_loss),
    "huber": (Huber(), F.huber_loss),
    "huber 0.3": (Huber(delta=0.3), lambda p, t: F.huber_loss(p, t, delta=0.3)),
    "charbonnier": (Charbonnier(eps=0.2), charbonnier),
    "psnr": (PSNR(), psnr),
}
every = pytest.mark.parametrize(("layer", "oracle"), ALL.values(), ids=list(ALL))
mses = pytest.mark.parametrize("layer", [MSE(), AtenMSE()], ids=["reference", "aten"])


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


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 1, 1), (3, 2, 5, 7)])
def test_value_and_gradient_equal_torch(
    layer: Layer, oracle: Oracle, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    if isinstance(layer, PSNR) and len(shape) < 2:
        pytest.skip("psnr counts images")
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    prediction = random_tensor(shape, seed=1, dtype=dtype, device=device)
    target = random_tensor(shape, seed=2, dtype=dtype, device=device)
    grad_loss = torch.tensor(0.7, dtype=dtype, device=device)
    kept = prediction.clone(), target.clone(), grad_loss.clone()
    leaf = prediction.clone().requires_grad_()
    loss = oracle(leaf, target)
    (true,) = torch.autograd.grad(loss, leaf, grad_loss)
    assert relative_error(forward(layer, prediction, target), loss.detach()) <= bound
    grad, none = backward(layer, grad_loss, prediction, target)
    assert relative_error(grad, true) <= bound
    assert none is None
    assert torch.equal(prediction, kept[0])
    assert torch.equal(target, kept[1])
    assert torch.equal(grad_loss, kept[2])


@every
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(
    layer: Layer, oracle: Oracle, strides: str, device: torch.device
) -> None:
    prediction = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    target = random_tensor((2, 3, 4, 5), seed=2, device=device)
    leaf = prediction.clone().requires_grad_()
    loss = oracle(leaf, target)
    (true,) = torch.autograd.grad(loss, leaf)
    assert relative_error(forward(layer, prediction, target), loss.detach()) <= 1e-14
    grad, _ = backward(layer, torch.ones_like(loss.detach()), prediction, target)
    assert relative_error(grad, true) <= 1e-14


@every
def test_gradient_equals_central_differences(
    layer: Layer, oracle: Oracle, device: torch.device
) -> None:
    prediction = random_tensor((2, 2, 3, 2), seed=1, device=device)
    target = random_tensor((2, 2, 3, 2), seed=2, device=device)
    grad_loss = torch.tensor(1.5, dtype=torch.float64, device=device)
    numeric = central_differences(lambda x: forward(layer, x, target), prediction, grad_loss)
    grad, _ = backward(layer, grad_loss, prediction, target)
    assert relative_error(grad, numeric) <= 1e-8


@mses
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


@pytest.mark.parametrize(
    ("layer", "loss", "slopes"),
    [
        # differences -2, 0, 0.5, 1
        (L1(), 3.5 / 4, [-0.25, 0.0, 0.25, 0.25]),
        (Huber(), (1.5 + 0 + 0.125 + 0.5) / 4, [-0.25, 0.0, 0.125, 0.25]),
        (Huber(delta=0.5), (0.875 + 0 + 0.125 + 0.375) / 4, [-0.125, 0.0, 0.125, 0.125]),
        (
            Charbonnier(eps=1.0),
            (5**0.5 + 1 + 1.25**0.5 + 2**0.5) / 4,
            [-0.5 / 5**0.5, 0.0, 0.125 / 1.25**0.5, 0.25 / 2**0.5],
        ),
    ],
    ids=str,
)
def test_worked_examples(layer: Layer, loss: float, slopes: list[float]) -> None:
    prediction = torch.tensor([-2.0, 0.0, 0.5, 1.0], dtype=torch.float64)
    target = torch.zeros_like(prediction)
    assert forward(layer, prediction, target).item() == pytest.approx(loss, rel=1e-15)
    grad, _ = backward(layer, torch.ones((), dtype=torch.float64), prediction, target)
    assert grad.tolist() == pytest.approx(slopes, rel=1e-15)


def test_psnr_is_the_mean_over_images_of_minus_their_psnr() -> None:
    # errors of 0.1 and 0.01 throughout: 20 dB and 40 dB
    target = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    prediction = target + torch.tensor([0.1, 0.01]).double().reshape(2, 1, 1, 1)
    exact = PSNR(eps=0.0)
    assert forward(exact, prediction, target).item() == pytest.approx(-30.0, rel=1e-7)
    # of an image: 20 d / (ln 10 * 2 * 48 * d^2), so the better image weighs ten times as much
    grad, _ = backward(exact, torch.ones((), dtype=torch.float64), prediction, target)
    slope = 20 / (math.log(10) * 96)
    assert grad[0, 0, 0, 0].item() == pytest.approx(slope / 0.1, rel=1e-6)
    assert grad[1, 2, 3, 3].item() == pytest.approx(slope / 0.01, rel=1e-6)
    # an image without an error: the gradient is 0 and no NaN
    assert forward(PSNR(), target, target).item() == pytest.approx(-80.0)
    grad, _ = backward(PSNR(), torch.ones((), dtype=torch.float64), target, target)
    assert not grad.any()


@every
def test_the_target_gets_no_gradient(layer: Layer, oracle: Oracle) -> None:
    assert layer.nondifferentiable == ("target",)
    assert layer.outputs == ("loss",)


@pytest.mark.parametrize("layer", [MSE(), L1(), Huber(), Charbonnier(), PSNR()], ids=str)
def test_a_target_of_another_shape_is_an_error(layer: Loss) -> None:
    message = r"expected a target of the prediction's shape \(2, 3\), got \(1, 3\)"
    with pytest.raises(GraphError, match=message):
        layer.forward(torch.zeros(2, 3), torch.zeros(1, 3))


def test_losses_refuse_bad_inputs_in_words() -> None:
    with pytest.raises(GraphError, match=r"expected images N x \.\.\., at least two axes, got"):
        PSNR().forward(torch.zeros(3), torch.zeros(3))
    with pytest.raises(DescriptionError, match="delta: expected greater than 0, found 0"):
        Huber(delta=0.0)
    with pytest.raises(DescriptionError, match="eps: expected greater than 0"):
        Charbonnier(eps=-1.0)

    class Unfinished(DifferenceLoss):
        pass

    with pytest.raises(ContractError, match="Unfinished defines no penalty"):
        Unfinished().forward(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ContractError, match="Unfinished defines no slope"):
        Unfinished().backward(torch.ones(()), torch.zeros(2))
