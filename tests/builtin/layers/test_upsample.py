"""nearest_upsampling and bilinear_upsampling against torch, central differences and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphnet.builtin import NearestUpsampling
from graphnet.builtin.kernels.aten.resample import AtenBilinearUpsampling
from graphnet.builtin.layers.upsample import BilinearUpsampling
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import observe
from graphnet.sdk import Layer, Site, Spec
from tests.support.oracle import (
    STRIDES,
    assert_near,
    central_differences,
    kernel_of,
    random_tensor,
    relative_error,
    run,
    run_torch,
)

FACTORS = [(1, 1), (2, 2), (2, 3), (3, 1), (1, 4)]
bilinear_kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])


def bilinear(kernel: str, definition: BilinearUpsampling, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    layer = kernel_of(AtenBilinearUpsampling, definition, [x.cpu()])
    assert layer is not None
    return layer


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
def test_nearest_upsampling_equals_torch(factor: tuple[int, int], device: torch.device) -> None:
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


@bilinear_kernels
@pytest.mark.parametrize(
    "factor",
    [(2, 2), (1, 3), (1.5, 2.37), (0.5, 1.0), (1 / 3, 0.7), (2.9999, 4), (1.1, 2), (1.04, 1.1)],
)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 7, 2), (1, 2, 6, 3)])
def test_bilinear_value_and_gradient_equal_torch(
    kernel: str,
    factor: tuple[float, float],
    align_corners: bool,
    shape: tuple[int, ...],
    device: torch.device,
) -> None:
    x = random_tensor(shape, seed=1, device=device)
    scale = tuple(map(float, factor))
    module = torch.nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=align_corners)
    grad_y = random_tensor(module(x).shape, seed=2, device=device)
    expected = run_torch(lambda x: module(x), {"x": x}, grad_y)
    definition = BilinearUpsampling(scale_factor=factor, align_corners=align_corners)
    assert_near(run(bilinear(kernel, definition, x), {"x": x}, grad_y), expected, bound=1e-13)


@bilinear_kernels
@pytest.mark.parametrize("strides", STRIDES)
def test_bilinear_takes_any_strides_and_is_as_exact_as_float32(kernel: str, strides: str) -> None:
    x = random_tensor((2, 3, 40, 50), seed=1, strides=strides)
    grad_y = random_tensor((2, 3, 60, 125), seed=2, strides=strides)
    definition = BilinearUpsampling(scale_factor=(1.5, 2.5))
    exact = run(definition, {"x": x}, grad_y)
    found = run(bilinear(kernel, definition, x.float()), {"x": x.float()}, grad_y.float())
    assert_near({name: tensor.double() for name, tensor in found.items()}, exact, bound=1e-5)


@bilinear_kernels
def test_bilinear_worked_example(kernel: str) -> None:
    x = torch.tensor([[[[1.0, 5.0]]]], dtype=torch.float64)
    grad_y = torch.tensor([[[[1.0, 2.0, 4.0, 8.0]]]], dtype=torch.float64)
    # places -1/4, 1/4, 3/4, 5/4, of which the first and last are kept within the image
    found = run(bilinear(kernel, BilinearUpsampling(scale_factor=(1, 2)), x), {"x": x}, grad_y)
    assert found["y"].flatten().tolist() == pytest.approx([1.0, 2.0, 4.0, 5.0])
    # 1 + 2 * 3/4 + 4 * 1/4;  2 * 1/4 + 4 * 3/4 + 8
    assert found["grad_x"].flatten().tolist() == pytest.approx([3.5, 11.5])
    aligned = BilinearUpsampling(scale_factor=(1, 2), align_corners=True)  # 0, 1/3, 2/3, 1
    found = run(bilinear(kernel, aligned, x), {"x": x}, grad_y)
    assert found["y"].flatten().tolist() == pytest.approx([1.0, 7.0 / 3.0, 11.0 / 3.0, 5.0])
    # 1 + 2 * 2/3 + 4 * 1/3;  2 * 1/3 + 4 * 2/3 + 8
    assert found["grad_x"].flatten().tolist() == pytest.approx([11.0 / 3.0, 34.0 / 3.0])


def test_bilinear_forward_keeps_a_nan_among_its_neighbours() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = math.nan
    y = BilinearUpsampling(scale_factor=2).forward(x)
    assert y[0, 0, 8:10, 8:10].isnan().all()
    assert y.isnan().sum() == 16  # the pixels of which it is one of the four neighbours


def test_bilinear_kernel_is_for_the_cpu() -> None:
    site = Site(
        (BilinearUpsampling(scale_factor=2),), {"x": Spec((1, 1, 2, 2))}, torch.device("cuda")
    )
    assert AtenBilinearUpsampling.match(site) is None


@pytest.mark.parametrize(
    "factor", [0, -2.0, float("inf"), float("nan"), (1.0, 2.0, 3.0), True, "2"]
)
def test_wrong_bilinear_factors_are_errors(factor: object) -> None:
    with pytest.raises(DescriptionError, match="scale_factor"):
        BilinearUpsampling(scale_factor=factor)


def test_bilinear_output_must_hold_a_pixel_of_an_image() -> None:
    with pytest.raises(GraphError, match="leaves nothing of an image of 4x9"):
        BilinearUpsampling(scale_factor=0.2).forward(torch.zeros(1, 1, 4, 9))
    with pytest.raises(GraphError, match="expected an input N x C x H x W, got"):
        BilinearUpsampling(scale_factor=2).forward(torch.zeros(3, 4, 4))
