"""linear, both kernels, against torch.nn.Linear and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.kernels.aten.linear import AtenLinear
from graphnet.builtin.layers.linear import Linear
from graphnet.errors import DescriptionError, GraphError
from graphnet.model import Model
from graphnet.sdk import Layer
from tests.support.oracle import central_differences, kernel_of, random_tensor, relative_error

kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
WANTED = frozenset({"x", "weight", "bias"})


def layer_of(kernel: str, definition: Linear, x: Tensor) -> Layer:
    layer = definition if kernel == "reference" else kernel_of(AtenLinear, definition, [x])
    assert layer is not None
    return layer


@kernels
@pytest.mark.parametrize("shape", [(7,), (1, 7), (4, 7), (2, 3, 7), (2, 3, 5, 7), (0, 7)])
@pytest.mark.parametrize("strides", ["contiguous", "reversed", "sliced"])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_equal_torch(
    kernel: str, shape: tuple[int, ...], strides: str, bias: bool, device: torch.device
) -> None:
    x = random_tensor(shape, seed=1, strides=strides, device=device)
    weight = random_tensor((5, 7), seed=2, strides=strides, device=device)
    b = random_tensor((5,), seed=3, device=device) if bias else None
    leaves = [t.clone().requires_grad_() for t in (x, weight, b) if t is not None]
    y = F.linear(*leaves)
    grad_y = random_tensor(y.shape, seed=4, strides=strides, device=device)
    true = torch.autograd.grad(y, leaves, grad_y)
    layer = layer_of(kernel, Linear(out_features=5, bias=bias), x)
    assert relative_error(layer.forward(x, weight, b), y.detach()) <= 1e-13
    wanted = WANTED if bias else WANTED - {"bias"}
    grads = layer.backward(grad_y, x, weight, wanted)
    for grad, expected in zip(grads, true, strict=False):
        assert relative_error(grad, expected) <= 1e-13
    assert (grads[2] is None) is not bias
    for name, position in (("x", 0), ("weight", 1)):
        alone = layer.backward(grad_y, x, weight, frozenset({name}))
        assert [grad is not None for grad in alone] == [i == position for i in range(3)]


@kernels
def test_by_hand(kernel: str, device: torch.device) -> None:
    def tensor(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)

    x, weight, bias = tensor([[1, 2], [3, 4]]), tensor([[10, 1]]), tensor([5])
    layer = layer_of(kernel, Linear(out_features=1), x)
    assert layer.forward(x, weight, bias).tolist() == [[17.0], [39.0]]  # 10 + 2 + 5, 30 + 4 + 5
    grads = layer.backward(tensor([[1], [-2]]), x, weight, WANTED)
    assert grads[0].tolist() == [[10.0, 1.0], [-20.0, -2.0]]
    assert grads[1].tolist() == [[-5.0, -6.0]]  # 1 - 2 * 3, 2 - 2 * 4
    assert grads[2].tolist() == [-1.0]


@kernels
def test_gradients_equal_central_differences(kernel: str, device: torch.device) -> None:
    x, weight, bias = (
        random_tensor(shape, seed=i, device=device)
        for i, shape in enumerate([(2, 3), (4, 3), (4,)])
    )
    grad_y = random_tensor((2, 4), seed=9, device=device)
    layer = layer_of(kernel, Linear(out_features=4), x)
    numeric = (
        central_differences(lambda t: layer.forward(t, weight, bias), x, grad_y),
        central_differences(lambda t: layer.forward(x, t, bias), weight, grad_y),
        central_differences(lambda t: layer.forward(x, weight, t), bias, grad_y),
    )
    for grad, expected in zip(layer.backward(grad_y, x, weight, WANTED), numeric, strict=True):
        assert relative_error(grad, expected) <= 1e-8


def test_parameters_start_as_torch_and_features_are_inferred() -> None:
    program = Model({"layers": [{"linear": {"out_features": 300}}]}).compile(
        (2, 400), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu"
    )
    for name, shape in (("weight", (300, 400)), ("bias", (300,))):
        found = program.weights[f"linear_1.{name}"]
        assert found.shape == shape
        assert 0.049 < float(found.abs().max()) <= 0.05  # U(-1/20, 1/20), from 1 / sqrt(400)
        assert float(found.var()) == pytest.approx(0.05**2 / 3, rel=0.2)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Linear(in_features=3, out_features=2),
            (2, 4),
            "expected 3 features on the last axis.*: 4",
        ),
        (Linear(out_features=2), (), "expected an input with features on its last axis"),
        (Linear(out_features=2), (4, 0), "expected an input with features on its last axis"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    layer: Linear, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        kernel_of(AtenLinear, layer, [torch.zeros(shape)])


def test_field_that_is_missing_or_out_of_range_is_refused() -> None:
    with pytest.raises(DescriptionError, match="out_features: must be given"):
        Linear()  # type: ignore[call-arg]
    with pytest.raises(DescriptionError, match="out_features"):
        Linear(out_features=0)
