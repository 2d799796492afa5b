"""Images in tiles: the result of the whole, in the memory that was asked for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from graphnet.cli.explain import explain
from graphnet.errors import InputError, MemoryBudgetError
from graphnet.model import Model
from graphnet.plan import Margin, Tiling, margins
from graphnet.plan.tiling import Cut, Part

CONV = {"out_channels": 6, "kernel_size": 3}
HOURGLASS: list[Any] = [  # two strides of 2 and a skip; kernels and paddings of every parity
    {"id": "stem", "conv2d": {**CONV, "padding": 1}},
    "relu",
    {"id": "high", "conv2d": {**CONV, "kernel_size": 5, "padding": "same", "dilation": 2}},
    {"conv2d": {**CONV, "kernel_size": 2, "stride": 2}},
    "batch_norm2d",
    {"conv2d": {**CONV, "kernel_size": 4, "stride": 2, "padding": 1}},
    {"transpose_conv2d": {**CONV, "kernel_size": 4, "stride": 2, "padding": 1}},
    {"nearest_upsampling": {"scale_factor": 2}},
    {"id": "low", "conv2d": {**CONV, "kernel_size": 2, "padding": "same"}},
    {"concat": {}, "inputs": ["low", "high"]},
    {"conv2d": {**CONV, "out_channels": 3, "padding": 1}},
]
LARGER: list[Any] = [  # 3/2 of the height, 3 times the width
    {"conv2d": {**CONV, "out_channels": 64, "padding": 1, "stride": (2, 1)}},
    {"conv2d": {**CONV, "out_channels": 64, "padding": 1}},
    {
        "transpose_conv2d": {
            "out_channels": 1,
            "kernel_size": (5, 3),
            "stride": 3,
            "padding": (1, 0),
        }
    },
]


SHRINKING: list[Any] = [  # sizes are rounded down, and borders are lost
    {"conv2d": {**CONV, "out_channels": 32}},
    {"max_pool2d": {"kernel_size": 3, "stride": 2}},
    {"conv2d": {**CONV, "kernel_size": 4}},
    {"bilinear_upsampling": {"scale_factor": 1.5}},
]
PADDED: list[Any] = [  # a border is added, then lost; a layer that asks for random numbers
    {"reflection_pad2d": {"padding": 3}},
    {"conv2d": {**CONV, "out_channels": 32, "kernel_size": 4}},
    {"dropout": {"p": 0.5}},
    {"replication_pad2d": {"padding": [0, 2, 1, 4]}},
    {"conv2d": {**CONV, "kernel_size": 3}},
]


SIGNAL: list[Any] = [
    {"conv1d": {**CONV, "padding": 2, "kernel_size": 5, "padding_mode": "reflect"}},
    "batch_norm1d",
    {"conv1d": {**CONV, "kernel_size": 2, "stride": 2}},
    {"max_pool1d": {"kernel_size": 3, "stride": 1, "padding": 1}},
    {"transpose_conv1d": {**CONV, "kernel_size": 4, "stride": 2, "padding": 1}},
    {"linear_upsampling": {"scale_factor": 2}},
    {"replication_pad1d": {"padding": [2, 1]}},
    "layer_norm1d",
    {"conv1d": {**CONV, "out_channels": 3}},
]
VOLUME: list[Any] = [
    {"conv3d": {**CONV, "padding": 1, "padding_mode": "replicate"}},
    {"avg_pool3d": {"kernel_size": 2}},
    {"depthwise_conv3d": {"kernel_size": 3, "padding": "same"}},
    {"nearest_upsampling3d": {"scale_factor": (2, 2, 1)}},
    {"conv3d": {**CONV, "out_channels": 3, "kernel_size": 1}},
]


def model(layers: list[Any], seed: int = 3) -> Model:
    return Model({"input": {"channels": 3}, "layers": layers}, seed=seed)


def image(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (HOURGLASS, (1, 3, 256, 192)),
        (HOURGLASS, (2, 3, 64, 512)),
        (LARGER, (1, 3, 200, 90)),
        (SHRINKING, (1, 3, 514, 131)),
        (PADDED, (1, 3, 250, 70)),
        (SIGNAL, (2, 3, 4098)),
        (VOLUME, (1, 3, 20, 36, 40)),
    ],
)
@pytest.mark.parametrize("memory", ["70%", "45%"])
def test_tiles_come_out_as_the_whole(
    layers: list[Any], shape: tuple[int, int, int, int], memory: str
) -> None:
    net, x = model(layers), image(*shape)
    before = x.clone()
    tiling = net.tiling(shape, memory=memory, dtype=torch.float64)
    assert tiling.count > 1
    whole = net.plan(shape, dtype=torch.float64).peak_bytes
    assert tiling.peak_bytes <= float(memory[:-1]) / 100 * whole
    expected, found = net.predict(x), net.predict(x, memory=memory)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert torch.equal(x, before)


def test_reach_is_the_sum_of_the_layers_windows() -> None:
    """By hand, from the last layer to the first, for rows 0 to 23 of an image without an end."""
    tiling = model(HOURGLASS).tiling((1, 3, 256, 192), memory="60%")
    # conv 3: -1..24; conv 2 "same" (one more after): -1..25; nearest: -1..12; transposed 4/2/1: -1..6;
    # conv 4/2/1: -3..14; conv 2/2: -6..29, more than the skip; conv 5 of dilation 2: -10..33; the stem:
    # -11..34. That is 11 before and 11 after, rounded up to the strides' 4.
    assert (tiling.cuts[0].before, tiling.cuts[0].after) == (12, 12)
    assert all(
        part.read.start % 4 == 0 and len(part.read) % 4 == 0 for part in tiling.cuts[0].parts
    )


def test_margins_are_the_reach_in_multiples_of_the_strides() -> None:
    layers: list[Any] = [
        {"conv2d": {"out_channels": 4, "kernel_size": 2, "stride": 2}},
        {"conv2d": {"out_channels": 4, "kernel_size": (3, 5), "padding": (1, 2)}},
        {"upsampling": {"out_channels": 1, "kernel_size": 2, "stride": 2}},
    ]
    model = Model({"input": {"channels": 1}, "layers": layers})
    assert margins(model.graph((1, 1, 16, 16))) == (Margin(2, 2, 2), Margin(4, 4, 2))
    whole = Model({"input": {"channels": 1}, "layers": ["instance_norm"]})
    with pytest.raises(InputError, match="looks at the whole image"):
        margins(whole.graph((1, 1, 16, 16)))


def test_tiles_with_a_smaller_reach_change_the_result() -> None:
    """The tiles would differ from the whole if they were cut out with less around them."""
    net, x = model(HOURGLASS), image(1, 3, 256, 192)
    tiling = net.tiling(x.shape, memory="60%", dtype=torch.float64)
    short = replace(tiling, cuts=tuple(replace(cut, before=4, after=4) for cut in tiling.cuts))
    expected = net.predict(x)
    torch.testing.assert_close(tiling.run(x, net.predict), expected, rtol=0, atol=1e-13)
    assert float((short.run(x, net.predict) - expected).abs().max()) > 1e-4


def test_parts_cover_an_axis_and_look_inside_at_its_ends() -> None:
    cut = Cut(length=20, kept=8, before=4, after=2)
    assert cut.parts == [
        Part(range(14), range(8)),
        Part(range(4, 18), range(8, 16)),
        Part(range(6, 20), range(16, 20)),
    ]
    assert (cut.count, cut.size, cut.read) == (3, 14, 42)


def test_plan_of_a_small_image_runs_it_whole() -> None:
    net, x = model(HOURGLASS), image(1, 3, 32, 32)
    tiling = net.tiling(x.shape, memory="1GiB", dtype=torch.float64)
    assert tiling.count == 1
    assert str(tiling).startswith("the whole image at once, at most ")
    assert torch.equal(net.predict(x, memory="1GiB"), net.predict(x))


def test_network_that_fits_in_memory_runs_whole() -> None:
    """Only a network that does not fit has to be one of images."""
    linear = Model({"layers": [{"linear": {"out_features": 3}}]})
    x = torch.rand(2, 5)
    assert torch.equal(linear.predict(x, memory="1MiB"), linear.predict(x, memory="100%"))
    with pytest.raises(InputError, match="tiles are for networks that make one image"):
        linear.predict(x, memory="50%")


def test_sizes_of_the_output_are_those_of_the_input_times_its_scale() -> None:
    tiling = model(LARGER).tiling((1, 3, 200, 90), memory="60%")
    assert isinstance(tiling, Tiling)
    assert tiling.scale == (Fraction(3, 2), Fraction(3))


def test_layer_that_looks_at_the_whole_image_is_named() -> None:
    net = model(
        [{"id": "a", "conv2d": {**CONV, "padding": 1}}, {"id": "join", "concat": {"dim": 2}}]
    )
    x = torch.rand(1, 3, 32, 32)
    assert net.predict(x, memory="1GiB").shape == (1, 6, 32, 32)  # it fits whole
    with pytest.raises(InputError, match=r"node 'join' \(concat\) looks at the whole image"):
        net.predict(x, memory="20%")


def test_a_border_that_repeats_the_other_end_is_named() -> None:
    around = {"conv1d": {**CONV, "padding": 1, "padding_mode": "circular"}}
    with pytest.raises(InputError, match=r"node 'conv1d_1' \(conv1d\) looks at the whole image"):
        model([around]).tiling((1, 3, 4096), memory="30%")


@pytest.mark.parametrize(
    ("layers", "divisor"),
    [
        ([{"conv1d": {**CONV, "padding": 1}}], 1),
        (
            [
                {"conv1d": {**CONV, "kernel_size": 4, "stride": 4}},
                {"nearest_upsampling1d": {"scale_factor": 4}},
            ],
            4,
        ),
        ([{"avg_pool3d": {"kernel_size": 2}}, {"trilinear_upsampling": {"scale_factor": 2}}], 2),
    ],
)
def test_divisor_of_signals_and_volumes(layers: list[Any], divisor: int) -> None:
    assert model(layers).divisor() == divisor


def test_layer_without_a_period_is_named() -> None:
    net = model(
        [{"id": "a", "conv2d": CONV}, {"id": "up", "bilinear_upsampling": {"scale_factor": 1.01}}]
    )
    with pytest.raises(
        InputError, match=r"node 'up' \(bilinear_upsampling\) has a window that does not repeat"
    ):
        net.tiling((1, 3, 200, 200), memory="50%")


def test_two_inputs_cannot_be_cut() -> None:
    net = Model(
        {
            "inputs": {"a": {"channels": 3}, "b": {"channels": 3}},
            "layers": [{"add": {}, "inputs": ["$a", "$b"]}],
        }
    )
    with pytest.raises(InputError, match="this one has 2 inputs"):
        net.tiling((1, 3, 8, 8), (1, 3, 8, 8), memory="50%")


def test_memory_that_no_tile_fits_is_refused() -> None:
    with pytest.raises(MemoryBudgetError, match=r"256 x 192 pixels does not fit into 100.0 KiB"):
        model(HOURGLASS).tiling((1, 3, 256, 192), memory="100KiB")


def test_a_plan_of_inference_takes_no_bound() -> None:
    with pytest.raises(InputError, match=r"see Model.tiling"):
        model(HOURGLASS).plan((1, 3, 32, 32), memory="50%")


def test_explain_shows_the_tiles_and_the_plan_of_one(tmp_path: Path) -> None:
    net = model(HOURGLASS)
    file = tmp_path / "net.yaml"
    file.write_text(net.description.to_yaml())
    arguments = [str(file), "--input", "1x3x256x192", "--memory", "60%"]
    shown = CliRunner().invoke(explain, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    tiling = net.tiling((1, 3, 256, 192), memory="60%")
    assert shown.stdout.startswith(f"{tiling}\n\n")
    assert f"1x6x{tiling.cuts[0].size}x{tiling.cuts[1].size}" in shown.stdout
