"""The layers of this plugin: the conformance kit, and their mathematics against torch."""

import pytest
import torch
from graphnet_denoise.layers import CropTo, DiagonalMeans, PadToMultiple

from graphnet.errors import GraphError
from graphnet.testing import LayerTests, Sample


class TestDiagonalMeans(LayerTests):
    samples = [
        Sample(DiagonalMeans(), [(2, 3, 4, 6)]),
        Sample(DiagonalMeans(), [(1, 1, 2, 2)]),
        Sample(DiagonalMeans(), [(2, 3, 5, 6)], raises=GraphError),
        Sample(DiagonalMeans(), [(2, 3, 6, 5)], raises=GraphError),
    ]


def test_diagonal_means_are_the_papers_convolutions() -> None:
    x = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    kernels = torch.tensor([[[0, 0.5], [0.5, 0]], [[0.5, 0], [0, 0.5]]], dtype=torch.float64)
    for found, kernel in zip(DiagonalMeans().forward(x), kernels, strict=True):
        weight = kernel.expand(3, 1, 2, 2)
        expected = torch.nn.functional.conv2d(x, weight, stride=2, groups=3)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_window_of_diagonal_means_is_the_cells(axis: int) -> None:
    assert DiagonalMeans().window(range(3, 5), axis) == range(6, 10)


class TestPadToMultiple(LayerTests):
    samples = [
        Sample(PadToMultiple(divisor=4), [(2, 3, 5, 8)]),
        Sample(PadToMultiple(divisor=8), [(1, 1, 1, 3)]),
        Sample(PadToMultiple(divisor=1), [(1, 2, 3, 3)]),
    ]


class TestCropTo(LayerTests):
    samples = [
        Sample(CropTo(), [(2, 3, 8, 8), (2, 1, 5, 7)]),
        Sample(CropTo(), [(1, 1, 3, 3), (1, 1, 3, 3)]),
        Sample(CropTo(), [(1, 1, 3, 3), (1, 1, 4, 3)], raises=GraphError),
        Sample(CropTo(), [(1, 3, 3), (1, 3, 3)], raises=GraphError),
    ]


@pytest.mark.parametrize("size", [(5, 7), (4, 6), (3, 4), (8, 8)])
def test_padding_is_the_reflection_of_torch_and_cropping_takes_it_away(
    size: tuple[int, int],
) -> None:
    x = torch.rand(1, 2, *size)
    right, below = -size[1] % 4, -size[0] % 4
    padded = PadToMultiple(divisor=4).forward(x)
    expected = torch.nn.functional.pad(x, (0, right, 0, below), mode="reflect")
    torch.testing.assert_close(padded, expected)
    torch.testing.assert_close(CropTo().forward(padded, x), x)
