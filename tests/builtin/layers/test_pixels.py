"""pixel_shuffle and pixel_unshuffle, every kernel, against torch and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphnet.builtin.kernels.aten.resample import AtenPixelShuffle, AtenPixelUnshuffle
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.errors import GraphError
from graphnet.sdk import Layer
from tests.support.oracle import STRIDES, assert_near, kernel_of, random_tensor, run, run_torch

kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])


def layer_of(kernel: str, definition: PixelShuffle | PixelUnshuffle, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    cls = AtenPixelShuffle if isinstance(definition, PixelShuffle) else AtenPixelUnshuffle
    layer = kernel_of(cls, definition, [x])
    assert layer is not None
    return layer


@kernels
@pytest.mark.parametrize("r", [1, 2, 3])
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_value_and_gradient_equal_torch(
    kernel: str, r: int, strides: str, dtype: torch.dtype, device: torch.device
) -> None:
    few, many = (2, 3, 4 * r, 5 * r), (2, 3 * r * r, 4, 5)
    for definition, function, shape, size in (
        (PixelShuffle(upscale_factor=r), torch.nn.PixelShuffle(r), many, few),
        (PixelUnshuffle(downscale_factor=r), torch.nn.PixelUnshuffle(r), few, many),
    ):
        x = random_tensor(shape, seed=1, strides=strides, dtype=dtype, device=device)
        grad_y = random_tensor(size, seed=2, strides=strides, dtype=dtype, device=device)
        expected = run_torch(lambda x, function=function: function(x), {"x": x}, grad_y)
        assert_near(run(layer_of(kernel, definition, x), {"x": x}, grad_y), expected, bound=0.0)


@kernels
def test_worked_example(kernel: str) -> None:
    channels = torch.tensor(
        [[[[1.0]], [[2.0]], [[3.0]], [[4.0]], [[5.0]], [[6.0]], [[7.0]], [[8.0]]]]
    )
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    up, down = PixelShuffle(upscale_factor=2), PixelUnshuffle(downscale_factor=2)
    assert torch.equal(layer_of(kernel, up, channels).forward(channels), image)
    assert torch.equal(layer_of(kernel, down, image).forward(image), channels)
    assert torch.equal(layer_of(kernel, up, channels).backward(image), channels)
    assert torch.equal(layer_of(kernel, down, image).backward(channels), image)


def test_empty_batch_has_the_right_shape_and_no_kernel() -> None:
    x = torch.zeros(0, 4, 6, 6)  # torch 2.13 returns 0 x 4 x 6 x 6 from its pixel_unshuffle
    definition = PixelUnshuffle(downscale_factor=2)
    assert definition.forward(x).shape == (0, 16, 3, 3)
    assert kernel_of(AtenPixelUnshuffle, definition, [x]) is None
    assert kernel_of(AtenPixelShuffle, PixelShuffle(upscale_factor=2), [x]) is None


@pytest.mark.parametrize(
    ("definition", "shape", "message"),
    [
        (PixelShuffle(upscale_factor=2), (1, 6, 2, 2), "channels divisible by 4"),
        (PixelShuffle(upscale_factor=2), (4, 2, 2), "expected an input N x C x H x W"),
        (PixelUnshuffle(downscale_factor=3), (1, 1, 6, 4), "height and width divisible by 3"),
        (PixelUnshuffle(downscale_factor=3), (1, 6, 6), "expected an input N x C x H x W"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    definition: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        definition.forward(torch.zeros(shape))
