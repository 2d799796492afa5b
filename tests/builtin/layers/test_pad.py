"""reflection_pad2d and replication_pad2d against torch and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphnet.builtin.layers.pad import ReflectionPad2d, ReplicationPad2d
from graphnet.errors import DescriptionError, GraphError
from graphnet.sdk import Layer
from tests.support.oracle import STRIDES, assert_near, random_tensor, run, run_torch

both = pytest.mark.parametrize(
    ("cls", "module"),
    [
        (ReflectionPad2d, torch.nn.ReflectionPad2d),
        (ReplicationPad2d, torch.nn.ReplicationPad2d),
    ],
)


@both
@pytest.mark.parametrize("padding", [0, 1, (3, 0, 1, 2), (0, 4, 0, 0)])
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient_equal_torch(
    cls: type[Layer],
    module: Any,
    padding: Any,
    strides: str,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, dtype=dtype, device=device)
    pad = module(padding)
    grad_y = random_tensor(pad(x).shape, seed=2, strides=strides, dtype=dtype, device=device)
    expected = run_torch(lambda x: pad(x), {"x": x}, grad_y)
    found = run(cls(padding=padding), {"x": x}, grad_y)
    assert_near(found, expected, bound=1e-14 if dtype is torch.float64 else 1e-6)
    assert torch.equal(found["y"], expected["y"])


def test_a_border_wider_than_the_image_replicates_one_pixel() -> None:
    x = torch.tensor([[[[7.0]]]])
    found = run(ReplicationPad2d(padding=(2, 1, 0, 3)), {"x": x}, torch.ones(1, 1, 4, 4))
    assert found["y"].tolist() == [[[[7.0] * 4] * 4]]
    assert found["grad_x"].tolist() == [[[[16.0]]]]


@pytest.mark.parametrize(
    ("layer", "row", "gradient"),
    [
        # y = c b a b c b, from weights 1 2 4 8 16 32: a gets 4, b 2 + 8 + 32, c 1 + 16
        (ReflectionPad2d(padding=(2, 1, 0, 0)), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0], [4.0, 42.0, 17.0]),
        # y = a a a b c c: a gets 1 + 2 + 4, b 8, c 16 + 32
        (ReplicationPad2d(padding=(2, 1, 0, 0)), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0], [7.0, 8.0, 48.0]),
    ],
)
def test_worked_example(layer: Layer, row: list[float], gradient: list[float]) -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    found = run(layer, {"x": x}, torch.tensor([[[[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]]]]))
    assert found["y"].flatten().tolist() == row
    assert found["grad_x"].flatten().tolist() == gradient


@pytest.mark.parametrize("padding", [-1, 1.5, (1, 2), (1, 1, 1, -1), True, "1"])
def test_wrong_padding_is_refused(padding: object) -> None:
    with pytest.raises(DescriptionError, match="padding"):
        ReplicationPad2d(padding=padding)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (ReflectionPad2d(padding=(0, 0, 0, 4)), (1, 1, 4, 9), "smaller than the image of 4x9"),
        (ReflectionPad2d(padding=(3, 0, 0, 0)), (1, 1, 9, 3), "smaller than the image of 9x3"),
        (ReflectionPad2d(padding=1), (4, 4), "expected an input N x C x H x W"),
        (ReplicationPad2d(padding=1), (1, 4, 4), "expected an input N x C x H x W"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        layer.forward(torch.zeros(shape))
