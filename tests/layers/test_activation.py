"""relu and sigmoid, both kernels, against torch, central differences and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphnet.kernels.aten import AtenReLU, AtenSigmoid
from graphnet.layer import Layer
from graphnet.layers.activation import ReLU, Sigmoid
from tests.layers.oracle import STRIDES, central_differences, random_tensor, relative_error

SHAPES = [(), (7,), (1, 1, 1, 1), (2, 3, 5, 7), (0, 3)]
relu = pytest.mark.parametrize("layer", [ReLU(), AtenReLU()], ids=["reference", "aten"])
sigmoid = pytest.mark.parametrize("layer", [Sigmoid(), AtenSigmoid()], ids=["reference", "aten"])
both = pytest.mark.parametrize(
    ("layer", "function"),
    [
        (ReLU(), torch.relu),
        (AtenReLU(), torch.relu),
        (Sigmoid(), torch.sigmoid),
        (AtenSigmoid(), torch.sigmoid),
    ],
    ids=["relu reference", "relu aten", "sigmoid reference", "sigmoid aten"],
)
floating = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
Function = Callable[[Tensor], Tensor]


def by_torch(function: Function, x: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    (grad_x,) = torch.autograd.grad(y, leaf, grad_y)
    return y.detach(), grad_x


@both
@floating
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_equal_torch(
    layer: Layer,
    function: Function,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    device: torch.device,
) -> None:
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    x = random_tensor(shape, seed=1, dtype=dtype, device=device) * 3
    grad_y = random_tensor(shape, seed=2, dtype=dtype, device=device)
    kept = x.clone(), grad_y.clone()
    y, grad_x = by_torch(function, x, grad_y)
    assert relative_error(layer.forward(x), y) <= bound
    assert relative_error(layer.backward(grad_y, y), grad_x) <= bound
    assert torch.equal(x, kept[0])
    assert torch.equal(grad_y, kept[1])


@both
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(
    layer: Layer, function: Function, strides: str, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    grad_y = random_tensor((2, 3, 4, 5), seed=2, strides=strides, device=device)
    y, grad_x = by_torch(function, x.contiguous(), grad_y.contiguous())
    assert relative_error(layer.forward(x), y) <= 1e-14
    result = layer.forward(x)
    assert relative_error(layer.backward(grad_y, result), grad_x) <= 1e-14


@both
def test_gradient_equals_central_differences(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 3), seed=3, device=device)
    x = x + 0.01 * x.sign()  # away from the kink of relu
    grad_y = random_tensor((2, 3, 4, 3), seed=4, device=device)
    numeric = central_differences(layer.forward, x, grad_y)
    assert relative_error(layer.backward(grad_y, layer.forward(x)), numeric) <= 1e-8


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_stay_what_they_are(
    layer: Layer, function: Function, dtype: torch.dtype, device: torch.device
) -> None:
    x = random_tensor((4, 33), seed=5, dtype=dtype, device=device)
    grad_y = random_tensor((4, 33), seed=6, dtype=dtype, device=device)
    y, grad_x = by_torch(function, x.float(), grad_y.float())
    assert relative_error(layer.forward(x), y.to(dtype)) <= 0.02
    assert relative_error(layer.backward(grad_y, y.to(dtype)), grad_x.to(dtype)) <= 0.02


@relu
def test_relu_by_hand_has_gradient_0_at_the_kink(layer: Layer, device: torch.device) -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0, math.inf, -math.inf], device=device)
    y = layer.forward(x)
    assert y.tolist() == [0.0, 0.0, 0.0, pytest.approx(1e-30), 3.0, math.inf, 0.0]
    grad_y = torch.tensor([5.0, 5.0, 5.0, 5.0, -7.0, 2.0, 2.0], device=device)
    assert layer.backward(grad_y, y).tolist() == [0.0, 0.0, 0.0, 5.0, -7.0, 2.0, 0.0]


@relu
def test_nan_goes_through_relu_as_in_torch(layer: Layer, device: torch.device) -> None:
    x = torch.tensor([math.nan, 1.0, -1.0], device=device)
    y, grad_x = by_torch(torch.relu, x, torch.tensor([2.0, math.nan, math.nan], device=device))
    found = layer.forward(x)
    assert torch.equal(found.isnan(), y.isnan())
    grad = layer.backward(torch.tensor([2.0, math.nan, math.nan], device=device), found)
    torch.testing.assert_close(grad, grad_x, rtol=0, atol=0, equal_nan=True)
    assert math.isnan(found[0])
    assert grad[0] == 2.0  # the gradient of NaN is grad_y, in torch too


@sigmoid
@floating
def test_sigmoid_is_finite_and_exact_far_from_0(
    layer: Layer, dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4, math.inf, -math.inf], dtype=dtype).to(device)
    y = layer.forward(x)
    small = math.exp(-200.0) if dtype is torch.float64 else 0.0  # below float32's smallest number
    assert y.tolist() == [0.0, pytest.approx(small), 0.5, 1.0, 1.0, 1.0, 0.0]
    grad_x = layer.backward(torch.ones_like(x), y)
    assert grad_x.tolist() == [0.0, pytest.approx(small), 0.25, 0.0, 0.0, 0.0, 0.0]
    assert math.isnan(layer.forward(torch.tensor([math.nan], dtype=dtype, device=device)))


@sigmoid
def test_derivative_of_sigmoid_is_s_times_1_minus_s(layer: Layer, device: torch.device) -> None:
    y = torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64, device=device)  # a sigmoid's values
    grad_y = torch.tensor([1.0, 10.0, -2.0], dtype=torch.float64, device=device)
    # 0.5 * 0.5;  10 * 0.2 * 0.8;  -2 * 0.9 * 0.1
    assert layer.backward(grad_y, y).tolist() == pytest.approx([0.25, 1.6, -0.18], rel=1e-14)


@sigmoid
def test_sigmoid_keeps_relative_accuracy_for_negative_inputs(
    layer: Layer, device: torch.device
) -> None:
    x = torch.linspace(-80.0, 0.0, 161, dtype=torch.float64, device=device)
    exact = torch.tensor([1 / (1 + math.exp(-v)) for v in x.tolist()], dtype=x.dtype)
    assert ((layer.forward(x).cpu() - exact).abs() / exact).max() <= 1e-13
