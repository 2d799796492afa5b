"""The layers of this plugin: the conformance kit, and their mathematics against torch."""

import pytest
import torch
from graphnet_denoise.layers import DiagonalMeans

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
