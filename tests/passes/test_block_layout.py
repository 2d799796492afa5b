"""Layouts: pixels in blocks, decided once for a whole graph, and the same numbers as N C H W."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import graphnet as gn
from graphnet.builtin import SGD
from graphnet.errors import LayerError
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import (
    Constant,
    Convert,
    Kernel,
    Layer,
    Layout,
    ParameterSpec,
    Precision,
    Register,
    Site,
    Specs,
    blocked_shape,
    hookimpl,
    load_registry,
    pack,
    plain_shape,
    unpack,
)
from tests.support.models import SEED

STACKS: list[Layout] = [(), ((2, 2),), ((3, 1), (2, 4)), ((2, 2), (1, 2), (2, 1))]
DOWN = {"conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}}
UP = {"transpose_conv2d": {"out_channels": 3, "kernel_size": 2, "stride": 2}}
SAME = {"conv2d": {"out_channels": 8, "kernel_size": 3, "padding": 1}}


def network(*layers: Any) -> Model:
    return Model({"input": {"channels": 3}, "layers": list(layers)})


def layouts(plan: Plan) -> dict[str, Layout | None]:
    return {name: plan.values[name].layout for name in plan.inputs}


def converts(plan: Plan) -> list[str]:
    return [step.call.name for step in plan.steps if isinstance(step.call.layer, Convert)]


# -- packing -----------------------------------------------------------------------------------------


def test_pack_by_hand() -> None:
    x = torch.arange(16).view(1, 1, 4, 4)
    assert pack(x, ((2, 2),)).flatten().tolist() == [
        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,
    ]  # fmt: skip
    two = pack(
        torch.arange(8).view(1, 1, 2, 4), ((1, 2), (2, 1))
    )  # columns in pairs, then two rows
    assert two.shape == (1, 1, 2, 2, 1, 1, 2, 1)
    assert two.flatten().tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_a_patch_is_what_unfold_lays_out() -> None:
    x = torch.rand(2, 3, 6, 8)
    columns = F.unfold(x, 2, stride=2)  # (N, C * 4, L), channels outermost
    expected = columns.view(2, 3, 4, 12).permute(0, 3, 2, 1)  # N, L, place in the patch, C
    assert torch.equal(pack(x, ((2, 2),)).reshape(2, 12, 4, 3), expected)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_unpack_undoes_pack(stack: Layout, memory_format: torch.memory_format) -> None:
    x = torch.rand(2, 3, 12, 16).contiguous(memory_format=memory_format)
    packed = pack(x, stack)
    assert tuple(packed.shape) == blocked_shape((2, 3, 12, 16), stack)
    assert plain_shape(tuple(packed.shape)) == (2, 3, 12, 16)
    assert torch.equal(unpack(packed), x)


# -- which layouts a plan uses -------------------------------------------------------------------------


def test_a_chain_of_patch_layers_moves_no_pixel() -> None:
    plan = Model(SEED).plan((4, 3, 8, 8), loss="mse", optimizer=SGD(lr=0.1))
    assert layouts(plan) == {"$input": ((2, 2), (2, 2)), "@target": ((2, 2), (2, 2))}
    assert converts(plan) == []
    assert plan.values["relu_2.y"].layout == ()


def test_prediction_moves_pixels_at_input_and_output_only() -> None:
    plan = Model(SEED).plan((4, 3, 8, 8))
    assert layouts(plan) == {"$input": None}
    assert converts(plan) == ["$input:2x2.2x2.nhwc", "sigmoid_1.y:nchw"]
    assert plan.values[plan.outputs[0]].spec.shape == (4, 3, 8, 8)


def test_single_patch_layer_inside_a_network_causes_no_relayout() -> None:
    plan = network(SAME, DOWN, SAME, UP).plan((1, 3, 8, 8))
    assert set(layouts(plan).values()) == {None}
    assert converts(plan) == []


def test_a_patch_layer_at_the_input_is_used_before_others() -> None:
    """N H W C is a view of N C H W: behind the first patch layer nothing has to move."""
    plan = network(DOWN, SAME).plan((1, 3, 8, 8))
    assert converts(plan) == ["$input:2x2.nhwc", "conv2d_1.y:nchw"]
    assert plan.values["conv2d_1.y:nchw.y"].view_of == "conv2d_1.y"
    training = network(DOWN, SAME).plan((1, 3, 8, 8), loss="mse")
    assert layouts(training)["$input"] == ((2, 2),)
    assert converts(training) == ["conv2d_1.y:nchw", "conv2d_1.y:nchw:backward"]


def test_a_network_of_pointwise_layers_stays_as_it_is() -> None:
    plan = network("relu", "sigmoid").plan((1, 3, 8, 8), loss="mse")
    assert set(layouts(plan).values()) == {None}


def test_single_pixels_are_no_blocks() -> None:
    point = {"conv2d": {"out_channels": 8, "kernel_size": 1}}
    assert layouts(network(point, point).plan((1, 3, 8, 8))) == {"$input": None}
    plan = network(DOWN, point, UP).plan((1, 3, 8, 8), loss="mse")
    assert layouts(plan)["$input"] == ((2, 2), (1, 1))  # between patch layers they cost nothing


def test_layout_can_be_switched_off() -> None:
    plan = Model(SEED).plan((4, 3, 8, 8), loss="mse", without=["block_layout"])
    assert set(layouts(plan).values()) == {None}
    assert "conv2d [patch]" not in gn.explain(plan)


# -- the same numbers ----------------------------------------------------------------------------------

RESIDUAL = {
    "input": {"channels": 3},
    "layers": [
        {"id": "down", **DOWN},
        "relu",
        {"id": "deep", "conv2d": {"out_channels": 5, "kernel_size": [1, 2], "stride": [1, 2]}},
        {"id": "back", "transpose_conv2d": {"out_channels": 8, "kernel_size": [1, 2], "stride": [1, 2]}},
        {"add": {}, "inputs": ["back", "down"]},
        {"id": "up", **UP},
        {"add": {}, "inputs": ["up", "$input"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("description", [SEED, RESIDUAL], ids=["seed", "residual"])
def test_training_in_blocks_equals_training_in_nchw(
    description: Mapping[str, Any], device: torch.device
) -> None:
    model = Model(description)
    generator = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, 3, 3, 8, 16, generator=generator, dtype=torch.float64).to(device)
    shape = tuple(x.shape)
    programs = [
        model.compile(
            shape,
            loss="mse",
            optimizer={"sgd": {"lr": 0.5}},
            dtype=torch.float64,
            device=device,
            without=without,
        )
        for without in ([], ["block_layout"])
    ]
    blocks, plain = programs
    assert None not in layouts(blocks.plan).values()
    assert set(layouts(plain.plan).values()) == {None}
    for _ in range(3):
        torch.testing.assert_close(
            blocks.step(x, target), plain.step(x, target), rtol=1e-12, atol=0
        )
    for name, weight in plain.weights.items():
        torch.testing.assert_close(blocks.weights[name], weight, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(blocks.predict(x), plain.predict(x), rtol=1e-10, atol=1e-14)


def test_sum_of_two_block_layouts_equals_nchw() -> None:
    """Both have the same rest, and as many pixels; but they lie in another order."""
    model = network(
        {"conv2d": {"out_channels": 8, "kernel_size": 4, "stride": 4}},
        {"transpose_conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
        {"id": "up", **UP},
        {"add": {}, "inputs": ["$input", "up"]},
    )
    x, target = torch.rand(2, 2, 3, 8, 16, dtype=torch.float64)
    blocks, plain = (
        model.compile(
            x.shape,
            loss="mse",
            optimizer=SGD(lr=0.5),
            dtype=torch.float64,
            device="cpu",
            without=without,
        )
        for without in ([], ["block_layout"])
    )
    for _ in range(2):
        torch.testing.assert_close(
            blocks.step(x, target), plain.step(x, target), rtol=1e-12, atol=0
        )


def test_packed_samples_are_what_step_packs() -> None:
    program = Model(SEED).compile(
        (2, 3, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.5}}, device="cpu"
    )
    data, targets = torch.rand(2, 6, 3, 8, 8)
    packed = program.pack(data, targets)  # more samples than a batch has
    index = torch.tensor([4, 1])
    first = program.step_packed(*(tensor[index] for tensor in packed))
    again = Model(SEED).compile(
        (2, 3, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.5}}, device="cpu"
    )
    assert torch.equal(first, again.step(data[index], targets[index]))


class Gain(Layer):
    """x * gain, one gain for each channel: pointwise, but for N C H W only."""

    pointwise: ClassVar[bool] = True
    precision: ClassVar[Precision] = "follow"

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"gain": ParameterSpec((specs["x"].shape[1], 1, 1), Constant(0.5))}

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * gain

    def backward(self, grad_y: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y * gain, (grad_y * x).sum_to_size(gain.shape)


class Gains:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("acme/gain", Gain)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])  # in bfloat16 it reads casts
def test_pointwise_layer_with_parameters_gets_nchw(precision: str) -> None:
    registry = load_registry(plugins=[Gains()], entry_points=False)
    model = Model({"input": {"channels": 3}, "layers": [DOWN, "acme/gain", UP]}, registry=registry)
    x, target = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    blocks, plain = (
        model.compile(
            (2, 3, 8, 8),
            loss="mse",
            optimizer={"sgd": {"lr": 0.5}},
            device="cpu",
            precision=precision,
            without=without,
        )
        for without in ([], ["block_layout"])
    )
    assert blocks.plan.values["conv2d_1.y"].layout is not None
    rtol = 1e-5 if precision == "float32" else 1e-2
    for _ in range(2):
        torch.testing.assert_close(blocks.step(x, target), plain.step(x, target), rtol=rtol, atol=0)
    torch.testing.assert_close(blocks.predict(x), plain.predict(x), rtol=rtol, atol=rtol)


# -- a layer that declares what it does not do -----------------------------------------------------------


class Wrong(Kernel):
    """Says that it writes blocks, and does not."""

    replaces: ClassVar[str] = "transpose_conv2d(x, weight, bias)"

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (), "y": ((2, 2),)}

    @classmethod
    def match(cls, site: Site) -> Wrong:
        return cls()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return x.unsqueeze(3).unsqueeze(3)[..., :3]

    def backward(self, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise AssertionError("never reached")


class Plugin:
    @hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        register("acme/wrong", Wrong)


def test_a_kernel_that_breaks_its_layouts_is_named() -> None:
    registry = load_registry(plugins=[Plugin()], entry_points=False)
    model = Model({"input": {"channels": 3}, "layers": [DOWN, UP]}, registry=registry)
    with pytest.raises(LayerError, match=r"transpose_conv2d.*the layouts it declares make"):
        model.plan((1, 3, 8, 8), loss="mse", kernels="acme")
