"""nearest_upsampling against torch, central differences and by hand."""

from __future__ import annotations

import pytest
import torch

from graphnet.errors import DescriptionError, GraphError
from graphnet.layers.upsample import NearestUpsampling
from graphnet.observe import observe
from graphnet.spec import Spec
from tests.layers.oracle import STRIDES, central_differences, random_tensor, relative_error

FACTORS = [(1, 1), (2, 2), (2, 3), (3, 1), (1, 4)]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (0, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient_equal_torch(
    factor: tuple[int, int],
    strides: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    x = random_tensor(shape, seed=1, strides=strides, dtype=dtype, device=device)
    leaf = x.clone().requires_grad_()
    y = leaf.repeat_interleave(factor[0], 2).repeat_interleave(factor[1], 3)
    grad_y = random_tensor(y.shape, seed=2, strides=strides, dtype=dtype, device=device)
    (grad_x,) = torch.autograd.grad(y, leaf, grad_y)
    kept = x.clone(), grad_y.clone()
    layer, spec = NearestUpsampling(scale_factor=factor), Spec(shape, dtype, device)
    assert torch.equal(layer.forward(x), y.detach())
    assert relative_error(layer.backward(grad_y, {"x": spec}), grad_x) <= bound
    (seen,) = observe(layer, "forward", {"x": spec})
    assert seen.spec.shape == y.shape
    assert torch.equal(x, kept[0])
    assert torch.equal(grad_y, kept[1])


@pytest.mark.parametrize("factor", FACTORS)
def test_it_is_torch_nearest_interpolation(factor: tuple[int, int], device: torch.device) -> None:
    x = random_tensor((2, 3, 5, 7), seed=1, device=device)
    scale = (float(factor[0]), float(factor[1]))
    y = torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")
    assert torch.equal(NearestUpsampling(scale_factor=factor).forward(x), y)


def test_worked_example_with_a_factor_per_axis() -> None:
    layer, x = NearestUpsampling(scale_factor=(2, 3)), torch.tensor([[[[1.0, 2.0]]]])
    row = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert layer.forward(x).tolist() == [[[row, row]]]
    grad_y = torch.tensor([[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 20.0, 30.0, 0.0, 0.0, 1.0]]]])
    # (1 + 2 + 3) + (10 + 20 + 30);  (4 + 5 + 6) + (0 + 0 + 1)
    assert layer.backward(grad_y, {"x": Spec((1, 1, 1, 2))}).tolist() == [[[[66.0, 16.0]]]]


def test_one_factor_serves_both_axes() -> None:
    assert NearestUpsampling(scale_factor=2).scale_factor == (2, 2)


def test_gradient_equals_central_differences(device: torch.device) -> None:
    layer, x = NearestUpsampling(scale_factor=(2, 3)), random_tensor((2, 2, 3, 2), seed=3)
    x, grad_y = x.to(device), random_tensor((2, 2, 6, 6), seed=4, device=device)
    numeric = central_differences(layer.forward, x, grad_y)
    found = layer.backward(grad_y, {"x": Spec((2, 2, 3, 2), x.dtype, device)})
    assert relative_error(found, numeric) <= 1e-8


@pytest.mark.parametrize("factor", [0, -1, 1.5, (2, 0), (1, 2, 3), "2"])
def test_wrong_factors_are_errors(factor: object) -> None:
    with pytest.raises(DescriptionError, match="scale_factor"):
        NearestUpsampling(scale_factor=factor)


def test_an_input_that_is_no_image_is_an_error() -> None:
    with pytest.raises(GraphError, match="expected an input N x C x H x W, got"):
        NearestUpsampling(scale_factor=2).forward(torch.zeros(3, 4, 4))
