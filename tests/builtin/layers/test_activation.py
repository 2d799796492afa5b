"""Activations, reference and kernels, against torch, central differences and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import ReLU, Sigmoid
from graphnet.builtin.kernels.aten.activation import (
    AtenGELU,
    AtenLeakyReLU,
    AtenPReLU,
    AtenReLU,
    AtenSigmoid,
    AtenSiLU,
    AtenSoftplus,
    AtenTanh,
)
from graphnet.builtin.kernels.aten.hard import (
    AtenELU,
    AtenHardsigmoid,
    AtenHardswish,
    AtenHardtanh,
    AtenReLU6,
)
from graphnet.builtin.layers.activation import LeakyReLU, PReLU, Tanh
from graphnet.builtin.layers.hard import ELU, Hardsigmoid, Hardswish, Hardtanh, ReLU6
from graphnet.builtin.layers.smooth import GELU, SiLU, Softplus
from graphnet.errors import DescriptionError, GraphError
from graphnet.model import Model
from graphnet.sdk import Layer
from tests.support.oracle import (
    STRIDES,
    central_differences,
    kernel_of,
    random_tensor,
    relative_error,
)

SHAPES = [(), (7,), (1, 1, 1, 1), (2, 3, 5, 7), (0, 3)]
Function = Callable[[Tensor], Tensor]
ALL: dict[str, tuple[Layer, type[Any], Function]] = {
    "relu": (ReLU(), AtenReLU, torch.relu),
    "leaky_relu": (LeakyReLU(), AtenLeakyReLU, F.leaky_relu),
    "leaky_relu 0": (LeakyReLU(negative_slope=0.0), AtenLeakyReLU, lambda x: F.leaky_relu(x, 0.0)),
    "leaky_relu 2": (LeakyReLU(negative_slope=2.0), AtenLeakyReLU, lambda x: F.leaky_relu(x, 2.0)),
    "sigmoid": (Sigmoid(), AtenSigmoid, torch.sigmoid),
    "tanh": (Tanh(), AtenTanh, torch.tanh),
    "gelu": (GELU(), AtenGELU, F.gelu),
    "gelu tanh": (
        GELU(approximate="tanh"),
        AtenGELU,
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "silu": (SiLU(), AtenSiLU, F.silu),
    "elu": (ELU(), AtenELU, F.elu),
    "elu 2": (ELU(alpha=2.0), AtenELU, lambda x: F.elu(x, 2.0)),
    "hardtanh": (
        Hardtanh(min_val=-1.5, max_val=2.5),
        AtenHardtanh,
        lambda x: F.hardtanh(x, -1.5, 2.5),
    ),
    "relu6": (ReLU6(), AtenReLU6, F.relu6),
    # the gradient of F.hardsigmoid has 1/6 to 8 digits only
    "hardsigmoid": (Hardsigmoid(), AtenHardsigmoid, lambda x: F.relu6(x + 3) / 6),
    "hardswish": (Hardswish(), AtenHardswish, F.hardswish),
    "softplus": (Softplus(), AtenSoftplus, F.softplus),
    "softplus 3 2": (
        Softplus(beta=3.0, threshold=2.0),
        AtenSoftplus,
        lambda x: F.softplus(x, 3.0, 2.0),
    ),
}


def kernel(name: str) -> Layer:
    layer, aten, _ = ALL[name]
    found = kernel_of(aten, layer, [torch.zeros(1)])
    assert found is not None
    return found


def implementations(*names: str) -> pytest.MarkDecorator:
    both = [(f"{name} {kind}", name, kind) for name in names for kind in ("reference", "aten")]
    return pytest.mark.parametrize(
        ("layer", "function"),
        [
            (ALL[name][0] if kind == "reference" else kernel(name), ALL[name][2])
            for _, name, kind in both
        ],
        ids=[words for words, _, _ in both],
    )


every = implementations(*ALL)
relu = implementations("relu")
sigmoid = implementations("sigmoid")
floating = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def backward(layer: Layer, grad_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient, from what the layer keeps."""
    named = {"grad_y": grad_y, "x": x, "y": y}
    grad: Tensor = layer.backward(**{name: named[name] for name in layer.signature.backward})
    return grad


def by_torch(function: Function, x: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    (grad_x,) = torch.autograd.grad(y, leaf, grad_y)
    return y.detach(), grad_x


@every
@floating
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_equal_torch(
    layer: Layer,
    function: Function,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    device: torch.device,
) -> None:
    bound = 1e-14 if dtype is torch.float64 else 2e-6
    x = random_tensor(shape, seed=1, dtype=dtype, device=device) * 3
    grad_y = random_tensor(shape, seed=2, dtype=dtype, device=device)
    kept = x.clone(), grad_y.clone()
    y, grad_x = by_torch(function, x, grad_y)
    assert relative_error(layer.forward(x), y) <= bound
    assert relative_error(backward(layer, grad_y, x, y), grad_x) <= bound
    assert torch.equal(x, kept[0])
    assert torch.equal(grad_y, kept[1])


@every
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(
    layer: Layer, function: Function, strides: str, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    grad_y = random_tensor((2, 3, 4, 5), seed=2, strides=strides, device=device)
    y, grad_x = by_torch(function, x.contiguous(), grad_y.contiguous())
    assert relative_error(layer.forward(x), y) <= 1e-14
    result = layer.forward(x)
    assert relative_error(backward(layer, grad_y, x, result), grad_x) <= 1e-14


@every
def test_gradient_equals_central_differences(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 3), seed=3, device=device)
    x = x + 0.01 * x.sign()  # away from the kink of relu
    grad_y = random_tensor((2, 3, 4, 3), seed=4, device=device)
    numeric = central_differences(layer.forward, x, grad_y)
    assert relative_error(backward(layer, grad_y, x, layer.forward(x)), numeric) <= 1e-8


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_stay_what_they_are(
    layer: Layer, function: Function, dtype: torch.dtype, device: torch.device
) -> None:
    x = random_tensor((4, 33), seed=5, dtype=dtype, device=device)
    grad_y = random_tensor((4, 33), seed=6, dtype=dtype, device=device)
    y, grad_x = by_torch(function, x.float(), grad_y.float())
    assert relative_error(layer.forward(x), y.to(dtype)) <= 0.02
    assert relative_error(backward(layer, grad_y, x, y.to(dtype)), grad_x.to(dtype)) <= 0.02


@every
def test_nan_goes_through_as_in_torch(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = torch.tensor([math.nan, 1.0, -1.0], device=device)
    grad_y = torch.tensor([2.0, math.nan, math.nan], device=device)
    y, grad_x = by_torch(function, x, grad_y)
    found = layer.forward(x)
    torch.testing.assert_close(found, y, equal_nan=True)
    grad = backward(layer, grad_y, x, found)
    torch.testing.assert_close(grad, grad_x, equal_nan=True)
    assert math.isnan(found[0])
    assert math.isnan(grad[1])


# -- relu and its leaky kin ------------------------------------------------------------------------------


@relu
def test_relu_by_hand_has_gradient_0_at_the_kink(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0, math.inf, -math.inf], device=device)
    y = layer.forward(x)
    assert y.tolist() == [0.0, 0.0, 0.0, pytest.approx(1e-30), 3.0, math.inf, 0.0]
    grad_y = torch.tensor([5.0, 5.0, 5.0, 5.0, -7.0, 2.0, 2.0], device=device)
    assert layer.backward(grad_y, y).tolist() == [0.0, 0.0, 0.0, 5.0, -7.0, 2.0, 0.0]


@relu
def test_gradient_of_nan_through_relu_is_that_of_y(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = torch.tensor([math.nan], device=device)
    assert layer.backward(torch.tensor([2.0], device=device), layer.forward(x)).tolist() == [2.0]


@implementations("leaky_relu 2")
def test_leaky_relu_by_hand_has_its_slope_at_the_kink(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = torch.tensor([-3.0, 0.0, 1e-30, 4.0], device=device)
    y = layer.forward(x)
    assert y.tolist() == [-6.0, 0.0, pytest.approx(1e-30), 4.0]
    grad_y = torch.tensor([1.0, 5.0, 5.0, -7.0], device=device)
    assert layer.backward(grad_y, y).tolist() == [2.0, 10.0, 5.0, -7.0]


def test_negative_slope_of_leaky_relu_is_refused() -> None:
    with pytest.raises(DescriptionError, match="negative_slope: expected greater than or equal"):
        LeakyReLU(negative_slope=-0.1)


@pytest.mark.parametrize("chosen", ["reference", "aten"])
@pytest.mark.parametrize(
    ("shape", "slopes"),
    [((2, 3, 4, 5), [0.25, -2.0, 0.0]), ((2, 3, 4, 5), [0.5]), ((4, 3), [1.0, 3.0, -1.0]),
     ((3, 2, 7), [0.1, 0.2]), ((5,), [0.3]), ((), [0.3])],
)  # fmt: skip
@pytest.mark.parametrize("strides", ["contiguous", "reversed"])
def test_prelu_and_the_gradient_of_its_slopes_equal_torch(
    chosen: str, shape: tuple[int, ...], slopes: list[float], strides: str, device: torch.device
) -> None:
    x = random_tensor(shape, seed=1, strides=strides, device=device)
    grad_y = random_tensor(shape, seed=2, strides=strides, device=device)
    weight = torch.tensor(slopes, dtype=x.dtype, device=device)
    definition = PReLU(num_parameters=len(slopes))
    layer = definition if chosen == "reference" else kernel_of(AtenPReLU, definition, [x])
    assert layer is not None
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = F.prelu(*leaves)
    expected = torch.autograd.grad(y, leaves, grad_y)
    assert relative_error(layer.forward(x, weight), y.detach()) <= 1e-14
    for grad, true in zip(layer.backward(grad_y, x, weight), expected, strict=True):
        assert relative_error(grad, true) <= 1e-13
    numeric = central_differences(lambda w: layer.forward(x, w), weight, grad_y)
    assert relative_error(layer.backward(grad_y, x, weight)[1], numeric) <= 1e-8


def test_prelu_takes_its_slopes_from_the_channels_or_refuses_them() -> None:
    x = torch.zeros(2, 6, 4, 4)
    for number in (1, 6, None):
        net = Model({"layers": [{"prelu": {"num_parameters": number, "init": 0.1}}]})
        (weight,) = net.compile(
            tuple(x.shape), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu"
        ).weights.values()
        torch.testing.assert_close(weight, torch.full((number or 6,), 0.1))
    with pytest.raises(GraphError, match="expected 3 channels, one for each slope, got 6"):
        Model({"layers": [{"prelu": {"num_parameters": 3}}]}).graph(tuple(x.shape))


# -- sigmoid --------------------------------------------------------------------------


@sigmoid
@floating
def test_sigmoid_is_finite_and_exact_far_from_0(
    layer: Layer, function: Function, dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4, math.inf, -math.inf], dtype=dtype).to(device)
    y = layer.forward(x)
    small = math.exp(-200.0) if dtype is torch.float64 else 0.0  # below float32's smallest number
    assert y.tolist() == [0.0, pytest.approx(small), 0.5, 1.0, 1.0, 1.0, 0.0]
    grad_x = layer.backward(torch.ones_like(x), y)
    assert grad_x.tolist() == [0.0, pytest.approx(small), 0.25, 0.0, 0.0, 0.0, 0.0]


@sigmoid
def test_derivative_of_sigmoid_is_s_times_1_minus_s(
    layer: Layer, function: Function, device: torch.device
) -> None:
    y = torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64, device=device)  # a sigmoid's values
    grad_y = torch.tensor([1.0, 10.0, -2.0], dtype=torch.float64, device=device)
    # 0.5 * 0.5;  10 * 0.2 * 0.8;  -2 * 0.9 * 0.1
    assert layer.backward(grad_y, y).tolist() == pytest.approx([0.25, 1.6, -0.18], rel=1e-14)


@sigmoid
def test_sigmoid_keeps_relative_accuracy_for_negative_inputs(
    layer: Layer, function: Function, device: torch.device
) -> None:
    x = torch.linspace(-80.0, 0.0, 161, dtype=torch.float64, device=device)
    exact = torch.tensor([1 / (1 + math.exp(-v)) for v in x.tolist()], dtype=x.dtype)
    assert ((layer.forward(x).cpu() - exact).abs() / exact).max() <= 1e-13


# -- in a model ------------------------------------------------------------------------------------------

FORMS: dict[str, Any] = {
    "leaky_relu": {"leaky_relu": {"negative_slope": 0.2}},
    "prelu": {"prelu": {"num_parameters": 5}},
    "tanh": "tanh",
    "gelu": "gelu",
    "gelu tanh": {"gelu": {"approximate": "tanh"}},
    "silu": "silu",
    "softplus": {"softplus": {"beta": 2.0}},
}
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "leaky_relu": lambda: torch.nn.LeakyReLU(0.2),
    "prelu": lambda: torch.nn.PReLU(5),
    "tanh": torch.nn.Tanh,
    "gelu": torch.nn.GELU,
    "gelu tanh": lambda: torch.nn.GELU("tanh"),
    "silu": torch.nn.SiLU,
    "softplus": lambda: torch.nn.Softplus(2.0),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chosen", ["auto", "reference"])
def test_steps_and_prediction_of_a_model_equal_torch(name: str, chosen: str) -> None:
    conv = {"conv2d": {"out_channels": 5, "kernel_size": 3}}
    model = Model({"input": {"channels": 3}, "layers": [conv, FORMS[name], conv, FORMS[name]]})
    program = model.compile(
        (2, 3, 7, 7),
        loss="mse",
        optimizer={"sgd": {"lr": 0.1}},
        device="cpu",
        dtype=torch.float64,
        kernels=chosen,
    )
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), MODULES[name](), torch.nn.Conv2d(5, 5, 3), MODULES[name]()
    ).double()
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), program.weights.values(), strict=True):
            parameter.copy_(weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x = random_tensor((2, 3, 7, 7), seed=1)
    target = random_tensor((2, 5, 3, 3), seed=2)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.mse_loss(network(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(program.predict(x), network(x).detach(), rtol=1e-10, atol=1e-12)
