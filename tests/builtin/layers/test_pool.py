"""max_pool2d, avg_pool2d and global_avg_pool, every kernel, against torch and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin.kernels.aten.pool import AtenAvgPool2d, AtenMaxPool2d
from graphnet.builtin.layers.pool import AvgPool2d, GlobalAvgPool, MaxPool2d
from graphnet.errors import DescriptionError, GraphError
from graphnet.sdk import Layer, Site, Spec
from tests.support.oracle import STRIDES, assert_near, kernel_of, random_tensor, run, run_torch

SHAPES = [(2, 3, 8, 9), (1, 1, 5, 5), (0, 2, 6, 7)]
kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
floating = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
shapes = pytest.mark.parametrize("shape", SHAPES)
MAX = [
    MaxPool2d(kernel_size=2),
    MaxPool2d(kernel_size=3, stride=1, padding=1),
    MaxPool2d(kernel_size=(2, 3), stride=(1, 2), padding=(1, 0), dilation=(3, 1)),
    MaxPool2d(kernel_size=(1, 4), stride=(3, 5), padding=(0, 2)),
    MaxPool2d(kernel_size=1),
]
AVERAGE = [
    AvgPool2d(kernel_size=2),
    AvgPool2d(kernel_size=3, stride=1, padding=1),
    AvgPool2d(kernel_size=3, stride=1, padding=1, count_include_pad=False),
    AvgPool2d(kernel_size=(4, 2), stride=(3, 5), padding=(2, 0), count_include_pad=False),
]


def layer_of(kernel: str, definition: MaxPool2d | AvgPool2d, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    cls = AtenMaxPool2d if isinstance(definition, MaxPool2d) else AtenAvgPool2d
    layer = kernel_of(cls, definition, [x.cpu()])
    assert layer is not None
    return layer


def by_torch(definition: MaxPool2d | AvgPool2d) -> torch.nn.Module:
    if isinstance(definition, MaxPool2d):
        return torch.nn.MaxPool2d(
            definition.kernel_size, definition.stride, definition.padding, definition.dilation
        )
    return torch.nn.AvgPool2d(
        definition.kernel_size,
        definition.stride,
        definition.padding,
        count_include_pad=definition.count_include_pad,
    )


@kernels
@floating
@shapes
@pytest.mark.parametrize("definition", [*MAX, *AVERAGE], ids=str)
def test_value_and_gradient_equal_torch(
    kernel: str,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    definition: MaxPool2d | AvgPool2d,
    device: torch.device,
) -> None:
    # Whole numbers: many windows hold their largest value more than once.
    x = random_tensor(shape, seed=1, dtype=dtype, device=device).round()
    module = by_torch(definition)
    grad_y = random_tensor(module(x).shape, seed=2, dtype=dtype, device=device)
    expected = run_torch(lambda x: module(x), {"x": x}, grad_y)
    found = run(layer_of(kernel, definition, x), {"x": x}, grad_y)
    assert_near(found, expected, bound=1e-14 if dtype is torch.float64 else 1e-6)


@kernels
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("definition", [MAX[1], AVERAGE[2]], ids=str)
def test_any_strides_are_accepted(
    kernel: str, strides: str, definition: MaxPool2d | AvgPool2d
) -> None:
    x = random_tensor((2, 3, 6, 7), seed=1, strides=strides)
    grad_y = random_tensor((2, 3, 6, 7), seed=2, strides=strides)
    module = by_torch(definition)
    expected = run_torch(lambda x: module(x), {"x": x.contiguous()}, grad_y.contiguous())
    assert_near(run(layer_of(kernel, definition, x), {"x": x}, grad_y), expected, bound=1e-14)


@kernels
def test_first_of_equal_values_gets_the_gradient(kernel: str) -> None:
    x = torch.tensor([[[[1.0, 3.0, 2.0, 2.0], [3.0, 3.0, 2.0, 2.0]]]])
    found = run(
        layer_of(kernel, MaxPool2d(kernel_size=2), x), {"x": x}, torch.tensor([[[[5.0, 7.0]]]])
    )
    assert found["y"].tolist() == [[[[3.0, 2.0]]]]
    assert found["grad_x"].tolist() == [[[[0.0, 5.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]


@kernels
def test_nan_is_the_largest_value_and_the_last_of_several_gets_the_gradient(kernel: str) -> None:
    nan = math.nan
    x = torch.tensor([[[[nan, math.inf, 1.0, nan], [nan, 9.0, 2.0, 2.0]]]])
    found = run(
        layer_of(kernel, MaxPool2d(kernel_size=2), x), {"x": x}, torch.tensor([[[[5.0, 7.0]]]])
    )
    assert found["y"].isnan().all()
    assert found["grad_x"].tolist() == [[[[0.0, 0.0, 0.0, 7.0], [5.0, 0.0, 0.0, 0.0]]]]


@kernels
@pytest.mark.parametrize(("include", "corner"), [(True, 12.0 / 9.0), (False, 12.0 / 4.0)])
def test_mean_counts_the_padding_or_not(kernel: str, include: bool, corner: float) -> None:
    x = torch.tensor([[[[1.0, 2.0], [4.0, 5.0]]]], dtype=torch.float64)
    definition = AvgPool2d(kernel_size=3, stride=1, padding=1, count_include_pad=include)
    found = run(layer_of(kernel, definition, x), {"x": x}, torch.ones_like(x))
    assert found["y"].tolist() == [[[[pytest.approx(corner)] * 2] * 2]]
    # each pixel is in all four windows, of which each has 9 or 4 pixels
    share = 4.0 / (9.0 if include else 4.0)
    assert found["grad_x"].tolist() == [[[[pytest.approx(share)] * 2] * 2]]


@floating
@shapes
def test_global_mean_equals_torch(
    dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    x = random_tensor(shape, seed=1, dtype=dtype, device=device)
    grad_y = random_tensor((*shape[:2], 1, 1), seed=2, dtype=dtype, device=device)
    module = torch.nn.AdaptiveAvgPool2d(1)
    expected = run_torch(lambda x: module(x), {"x": x}, grad_y)
    bound = 1e-14 if dtype is torch.float64 else 1e-6
    assert_near(run(GlobalAvgPool(), {"x": x}, grad_y), expected, bound=bound)


def test_a_window_of_more_than_256_pixels_keeps_which_one_it_took() -> None:
    x = torch.zeros(1, 1, 20, 20)
    x[0, 0, 19, 18] = 1.0  # the pixel of number 398
    found = run(MaxPool2d(kernel_size=20), {"x": x}, torch.tensor([[[[3.0]]]]))
    assert torch.equal(found["grad_x"], 3.0 * x)


def test_kernel_keeps_no_image() -> None:
    x = torch.zeros(1, 1, 4, 4)
    for definition in (MaxPool2d(kernel_size=2), AvgPool2d(kernel_size=2)):
        assert "x" not in layer_of("aten", definition, x).signature.backward


@pytest.mark.parametrize(("stride", "matches"), [(2, True), (3, True), (1, False)])
def test_kernel_leaves_windows_that_overlap_alone_on_cuda(stride: int, matches: bool) -> None:
    definition = MaxPool2d(kernel_size=2, stride=stride)
    site = Site((definition,), {"x": Spec((1, 1, 8, 8))}, torch.device("cuda"))
    assert (AtenMaxPool2d.match(site) is not None) is matches


@pytest.mark.parametrize("cls", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kernel_size": 3, "padding": 2},
            r"padding: expected at most half of kernel_size \(3, 3\)",
        ),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": 2, "stride": 0}, "stride"),
        ({"kernel_size": 2, "return_indices": True}, "return_indices"),
    ],
)
def test_field_that_does_not_fit_is_refused(
    cls: type[Layer], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(DescriptionError, match=message):
        cls(**fields)


@pytest.mark.parametrize(
    ("definition", "shape", "message"),
    [
        (MaxPool2d(kernel_size=3), (3, 4, 4), "expected an input N x C x H x W, got"),
        (AvgPool2d(kernel_size=(2, 5)), (1, 1, 4, 4), "the kernel spans 2x5, more than"),
        (MaxPool2d(kernel_size=3, dilation=2), (1, 1, 5, 4), "the kernel spans 5x5, more than"),
        (
            MaxPool2d(kernel_size=2, padding=1, dilation=3),
            (1, 1, 2, 5),
            "dilation .* is larger than the image of 2x5",
        ),
        (GlobalAvgPool(), (4, 4), "expected an input N x C x ... with spatial axes, got"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    definition: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        definition.forward(torch.zeros(shape))
