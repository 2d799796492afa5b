"""rescale and layer_scale against torch and by hand, and what prediction makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin.layers.scale import LayerScale, Rescale
from graphnet.errors import GraphError
from graphnet.model import Model, Program
from tests.support.oracle import STRIDES, central_differences, random_tensor, relative_error


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("factor", [0.1, -2.0, 0.0])
def test_rescale_multiplies_value_and_gradient(
    factor: float, strides: str, device: torch.device
) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    layer, kept = Rescale(factor=factor), x.clone()
    assert torch.equal(layer.forward(x), kept * factor)
    assert torch.equal(layer.backward(x), kept * factor)
    assert torch.equal(x, kept)
    place = kept.clone()
    assert layer.forward_(place) is place
    assert layer.backward_(place) is place
    torch.testing.assert_close(place, kept * factor * factor)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1), (4, 3), (2, 5, 3)])
def test_layer_scale_and_its_gradients_equal_torch(
    shape: tuple[int, ...], strides: str, device: torch.device
) -> None:
    if strides == "channels_last" and len(shape) != 4:
        strides = "contiguous"
    x = random_tensor(shape, seed=1, strides=strides, device=device)
    grad_y = random_tensor(shape, seed=2, strides=strides, device=device)
    weight = random_tensor((shape[1],), seed=3, device=device)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = torch.einsum("nc...,c->nc...", *leaves)
    true = torch.autograd.grad(y, leaves, grad_y)
    layer = LayerScale()
    assert relative_error(layer.forward(x, weight), y.detach()) <= 1e-15
    grads = layer.backward(grad_y, x, weight)
    for grad, expected in zip(grads, true, strict=True):
        assert relative_error(grad, expected) <= 1e-13
    numeric = central_differences(lambda w: layer.forward(x, w), weight, grad_y)
    assert relative_error(grads[1], numeric) <= 1e-8


def test_layer_scale_by_hand(device: torch.device) -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], device=device)
    weight = torch.tensor([10.0, 0.5], device=device)
    y = LayerScale().forward(x, weight)
    assert y.tolist() == [[[10.0, 20.0], [1.5, 2.0]], [[50.0, 60.0], [3.5, 4.0]]]
    grad_x, grad_weight = LayerScale().backward(torch.ones_like(x), x, weight)
    assert grad_x[0].tolist() == [[10.0, 10.0], [0.5, 0.5]]
    assert grad_weight.tolist() == [14.0, 22.0]  # 1 + 2 + 5 + 6, 3 + 4 + 7 + 8


def test_layer_scale_refuses_an_input_without_channels() -> None:
    with pytest.raises(GraphError, match=r"expected an input N x C x \.\.\., got 4"):
        Model({"layers": ["layer_scale"]}).graph((4,))


def branch(**scale: Any) -> tuple[Program, Tensor, Tensor]:
    """A convolution in a residual branch that ends in a scale, and an image with its target."""
    model = Model(
        {
            "input": {"channels": 4},
            "layers": [
                {"id": "c", "conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
                {"id": "s", **scale},
                {"add": {}, "inputs": ["s", "$input"]},
            ],
        }
    )
    program = model.compile(
        (2, 4, 5, 7), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu", dtype=torch.float64
    )
    return program, random_tensor((2, 4, 5, 7), seed=1), random_tensor((2, 4, 5, 7), seed=2)


def test_a_branch_that_starts_from_0_is_the_identity_and_learns() -> None:
    program, x, target = branch(layer_scale={"init": 0.0})
    assert torch.equal(program.predict(x), x)
    weights = {name: w.clone().requires_grad_() for name, w in program.weights.items()}
    inner = torch.nn.functional.conv2d(x, weights["c.weight"], weights["c.bias"], padding=1)
    loss = torch.nn.functional.mse_loss(x + weights["s.weight"].view(-1, 1, 1) * inner, target)
    grads = torch.autograd.grad(loss, list(weights.values()))
    torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-12, atol=0)
    for (name, start), grad in zip(weights.items(), grads, strict=True):
        torch.testing.assert_close(program.weights[name], start.detach() - grad)
    assert program.weights["s.weight"].abs().min() > 0


@pytest.mark.parametrize(
    ("scale", "left"), [({"layer_scale": {"init": 0.3}}, 0), ({"rescale": {"factor": 0.3}}, 1)]
)
def test_prediction_folds_a_trained_scale_into_the_convolution(
    scale: dict[str, Any], left: int
) -> None:
    program, x, _ = branch(**scale)
    weight, bias = program.weights["c.weight"], program.weights["c.bias"]
    expected = x + 0.3 * torch.nn.functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(program.predict(x), expected)
    model = Model(program.description)
    names = [step.call.name for step in model.plan((2, 4, 5, 7)).steps]
    assert names.count("s") == left
