"""Windows: the rows of the input that rows of the output depend on, by hand and by NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graphnet.builtin import Conv2d, LayerNorm2d
from graphnet.builtin.layers.conv import Conv1d
from graphnet.builtin.layers.depthwise import DepthwiseConv2d
from graphnet.builtin.layers.pad import CircularPad2d, ReflectionPad2d, ReplicationPad2d
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.pool import AvgPool2d, MaxPool2d, MaxPool3d
from graphnet.builtin.layers.upsample import BilinearUpsampling
from graphnet.graph import as_tuple, bind_inputs
from graphnet.sdk import Layer, Spec

SIZE = 12


@pytest.mark.parametrize(
    ("layer", "rows", "of_height", "of_width"),
    [
        # places 2 and 3, two apart, from one before; each reaches over 3 rows or 1 column
        (
            Conv2d(out_channels=1, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0)),
            range(2, 4),
            range(3, 8),
            range(2, 4),
        ),
        # an even kernel under "same" reaches one further to the right and below
        (DepthwiseConv2d(kernel_size=4, padding="same"), range(5), range(-1, 7), range(-1, 7)),
        (DepthwiseConv2d(kernel_size=3, dilation=(1, 3)), range(1), range(3), range(7)),
        (MaxPool2d(kernel_size=2, dilation=3), range(1, 3), range(2, 8), range(2, 8)),
        (AvgPool2d(kernel_size=3, stride=1, padding=1), range(4), range(-1, 5), range(-1, 5)),
        (PixelShuffle(upscale_factor=3), range(2, 4), range(2), range(2)),
        (PixelUnshuffle(downscale_factor=3), range(2, 4), range(6, 12), range(6, 12)),
        # rows 2 and 3 lie at 0.75 and 1.25
        (BilinearUpsampling(scale_factor=2), range(2, 4), range(3), range(3)),
        # row 0 lies at -0.25 and is row 0; row 1 is between rows 0 and 1
        (BilinearUpsampling(scale_factor=2), range(2), range(-1, 2), range(-1, 2)),
        (BilinearUpsampling(scale_factor=0.5), range(2), range(4), range(4)),
        # left 1, right 2, top 3, bottom 0: a mirrored row may lie twice that away
        (ReflectionPad2d(padding=(1, 2, 3, 0)), range(5, 6), range(2, 9), range(7)),
        (ReplicationPad2d(padding=(1, 2, 3, 0)), range(5, 6), range(2, 6), range(2, 6)),
        (LayerNorm2d(), range(2, 4), range(2, 4), range(2, 4)),
        # rows 2 and 3 read rows 1 to 4 of the image; a mirrored row lies up to twice the padding away
        (
            Conv2d(out_channels=1, kernel_size=3, padding=(1, 0), padding_mode="reflect"),
            range(2, 4),
            range(-1, 7),
            range(2, 6),
        ),
    ],
    ids=str,
)
def test_worked_example(layer: Layer, rows: range, of_height: range, of_width: range) -> None:
    assert layer.window(rows, 0) == of_height
    assert layer.window(rows, 1) == of_width


def output(layer: Layer, x: Tensor) -> Tensor:
    ports = bind_inputs(layer, [Spec(tuple(x.shape), x.dtype)], x.dtype)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: None
        if spec is None
        else spec.initializer(torch.empty(spec.shape, dtype=x.dtype), generator)
        for name, spec in ports.parameters.items()
    }
    y: Tensor = as_tuple(layer.forward(x, **weights))[0]
    return y


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(out_channels=2, kernel_size=(3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 1)),
        DepthwiseConv2d(kernel_size=(4, 3), padding="same"),
        MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=2),
        AvgPool2d(kernel_size=(3, 2), stride=1, padding=1, count_include_pad=False),
        PixelShuffle(upscale_factor=2),
        PixelUnshuffle(downscale_factor=3),
        BilinearUpsampling(scale_factor=(1.7, 3)),
        BilinearUpsampling(scale_factor=(0.4, 1)),
        ReflectionPad2d(padding=(1, 4, 3, 2)),
        ReplicationPad2d(padding=(1, 4, 3, 2)),
        LayerNorm2d(),
        Conv2d(out_channels=2, kernel_size=3, padding=2, padding_mode="reflect"),
        Conv2d(out_channels=2, kernel_size=4, padding="same", padding_mode="replicate"),
        MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True),
    ],
    ids=str,
)
def test_nothing_outside_the_window_is_read(layer: Layer, axis: int) -> None:
    x = torch.rand((1, 4, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    expected = output(layer, x)
    last = expected.shape[2 + axis]
    for start in range(last):
        rows = range(start, min(start + 2, last))
        window = layer.window(rows, axis)
        assert window is not None
        there = range(max(window.start, 0), min(window.stop, SIZE))
        moved = torch.full_like(x, math.nan)
        kept = x.narrow(2 + axis, there.start, len(there))
        moved.narrow(2 + axis, there.start, len(there)).copy_(kept)
        found = output(layer, moved).narrow(2 + axis, start, len(rows))
        assert torch.equal(found, expected.narrow(2 + axis, start, len(rows)))


def test_a_window_knows_each_axis_of_signals_and_volumes() -> None:
    signal = Conv1d(out_channels=1, kernel_size=3, stride=2, padding=1)
    volume = MaxPool3d(kernel_size=(1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 0))
    assert signal.window(range(2, 4), 0) == range(3, 8)
    assert [volume.window(range(1, 3), axis) for axis in range(3)] == [
        range(1, 3),
        range(1, 5),
        range(1, 5),
    ]


def test_a_border_that_repeats_the_other_end_has_no_window() -> None:
    layer = Conv2d(out_channels=1, kernel_size=3, padding=(1, 0), padding_mode="circular")
    assert layer.window(range(2), 0) is None
    assert layer.window(range(2), 1) == range(4)
    assert CircularPad2d(padding=(1, 0, 0, 0)).window(range(2), 1) is None


def test_a_window_that_depends_on_the_size_of_the_image_is_unknown() -> None:
    assert BilinearUpsampling(scale_factor=2, align_corners=True).window(range(2), 0) is None
