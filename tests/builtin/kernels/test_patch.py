"""The patch kernels: convolutions whose stride is their kernel size, as one matrix product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from graphnet.builtin import (
    Conv2d,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    ReLU,
    TransposeConv2d,
)
from graphnet.sdk import Kernel, Layer, Site, Spec, pack, unpack
from graphnet.testing import Sample, assert_checks_pass

CONVOLUTIONS = [
    Conv2d(out_channels=4, kernel_size=2, stride=2),
    Conv2d(out_channels=3, kernel_size=(3, 1), stride=(3, 1), bias=False),
    Conv2d(out_channels=2, kernel_size=1),
]
TRANSPOSES = [
    TransposeConv2d(out_channels=4, kernel_size=2, stride=2),
    TransposeConv2d(out_channels=3, kernel_size=(1, 3), stride=(1, 3), bias=False),
]
SHAPES = [(2, 3, 6, 4), (1, 1, 3, 2)]


def samples(layers: list[Layer], *, relu: bool = False) -> list[Sample]:
    return [
        Sample((ReLU(), layer) if relu else layer, [shape]) for layer in layers for shape in SHAPES
    ]


@pytest.mark.parametrize(
    ("kernel", "given"),
    [
        (PatchConv2d, samples([*CONVOLUTIONS])),
        (PatchConv2dReLU, samples([*CONVOLUTIONS], relu=True)),
        (PatchTransposeConv2d, samples([*TRANSPOSES])),
        (PatchTransposeConv2dReLU, samples([*TRANSPOSES], relu=True)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_patch_kernel_passes_all_checks(kernel: type[Kernel], given: list[Sample]) -> None:
    assert_checks_pass(kernel, given)


def match(kernel: type[Kernel], layer: Layer, shape: tuple[int, ...]) -> Kernel | None:
    return kernel.match(Site((layer,), {"x": Spec(shape, torch.float32)}, torch.device("cpu")))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(out_channels=4, kernel_size=2), (1, 3, 4, 4)),
        (Conv2d(out_channels=4, kernel_size=2, stride=3), (1, 3, 6, 6)),
        (Conv2d(out_channels=4, kernel_size=2, stride=2, padding=1), (1, 3, 4, 4)),
        (Conv2d(out_channels=3, kernel_size=2, stride=2, groups=3), (1, 3, 4, 4)),
        (Conv2d(out_channels=4, kernel_size=2, stride=2, dilation=2), (1, 3, 4, 4)),
        (Conv2d(out_channels=4, kernel_size=2, stride=2), (1, 3, 5, 4)),
        (Conv2d(out_channels=4, kernel_size=2, stride=2), (0, 3, 4, 4)),
    ],
)
def test_patch_kernels_refuse_other_convolutions(layer: Conv2d, shape: tuple[int, ...]) -> None:
    assert match(PatchConv2d, layer, shape) is None


@pytest.mark.parametrize(
    "layer",
    [
        TransposeConv2d(out_channels=4, kernel_size=2, stride=3),
        TransposeConv2d(out_channels=4, kernel_size=2, stride=2, padding=1),
        TransposeConv2d(out_channels=4, kernel_size=2, stride=2, output_padding=1),
        TransposeConv2d(out_channels=3, kernel_size=2, stride=2, groups=3),
        TransposeConv2d(out_channels=4, kernel_size=2, stride=2, dilation=2),
    ],
)
def test_transposes_that_overlap_are_left_alone(layer: TransposeConv2d) -> None:
    assert match(PatchTransposeConv2d, layer, (1, 3, 4, 4)) is None


def test_a_kernel_runs_in_any_rest_of_blocks() -> None:
    """The layout's rest is unknown to the kernel: two more stacks of blocks behind its own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 8, 24, generator=generator, dtype=torch.float64)
    weight = torch.rand(5, 3, 2, 2, generator=generator, dtype=torch.float64)
    rest = ((2, 3), (1, 2))
    kernel = PatchConv2d(kernel_size=(2, 2))
    y = kernel.forward(pack(x, ((2, 2), *rest)), weight, None)
    expected = F.conv2d(x, weight, stride=2)
    assert torch.equal(y, pack(unpack(y), rest))
    torch.testing.assert_close(unpack(y), expected, rtol=1e-12, atol=0)
    up = PatchTransposeConv2d(kernel_size=(2, 2))
    back = up.forward(y, weight, None)
    torch.testing.assert_close(
        unpack(back), F.conv_transpose2d(expected, weight, stride=2), rtol=1e-12, atol=0
    )


def test_the_bias_gradient_of_bfloat16_is_accumulated_in_float32() -> None:
    """In bfloat16 a sum of ones would stay at 256."""
    g = torch.full((1, 64, 64, 1), 1.0, dtype=torch.bfloat16)
    x = torch.zeros(1, 64, 64, 1, 1, 1, dtype=torch.bfloat16)
    weight = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    _, _, grad = PatchConv2d(kernel_size=(1, 1)).backward(g, x, weight, frozenset({"bias"}))
    assert grad.tolist() == [4096.0]


def test_weights_in_channels_last_are_not_copied() -> None:
    x = torch.rand(1, 4, 4, 2, 2, 3)
    weight = torch.rand(5, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(acc_events=True) as profile:  # else torch 2.11 warns
        PatchConv2d(kernel_size=(2, 2)).forward(x, weight, None)
    assert {"aten::copy_", "aten::clone"}.isdisjoint(e.key for e in profile.key_averages())
    kernel = PatchConv2d.memory_formats["weight"]
    assert kernel is torch.channels_last
