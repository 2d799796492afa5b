"""depthwise_conv2d, both kernels, against torch's grouped convolution, in plans, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import graphnet as gn
from graphnet.builtin import Conv2d
from graphnet.builtin.kernels.aten.convolution import AtenDepthwiseConv2d
from graphnet.builtin.layers.depthwise import DepthwiseConv2d
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import bind_inputs
from graphnet.model import Model
from graphnet.sdk import Layer, Spec
from tests.support.oracle import STRIDES, assert_near, kernel_of, random_tensor, run, run_torch

kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
LAYERS = [
    DepthwiseConv2d(kernel_size=3, padding=1),
    DepthwiseConv2d(kernel_size=(2, 5), stride=(3, 1), padding=(0, 4), bias=False),
    DepthwiseConv2d(kernel_size=3, padding="same", dilation=2),
    DepthwiseConv2d(kernel_size=1, stride=2),
]


def layer_of(kernel: str, definition: DepthwiseConv2d, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    layer = kernel_of(AtenDepthwiseConv2d, definition, [x])
    assert layer is not None
    return layer


@kernels
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("definition", LAYERS, ids=str)
def test_value_and_gradients_equal_torch(
    kernel: str, strides: str, definition: DepthwiseConv2d, device: torch.device
) -> None:
    options: dict[str, Any] = {"strides": strides, "device": device}
    arguments = {
        "x": random_tensor((2, 4, 7, 6), seed=1, **options),
        "weight": random_tensor((4, 1, *definition.kernel_size), seed=2, **options),
        "bias": random_tensor((4,), seed=3, device=device) if definition.bias else None,
    }

    def convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(
            x,
            weight,
            bias,
            definition.stride,
            definition.padding,
            definition.dilation,
            groups=4,
        )

    shape = convolution(**arguments).shape  # type: ignore[arg-type]
    grad_y = random_tensor(shape, seed=4, **options)
    expected = run_torch(convolution, arguments, grad_y)
    found = run(layer_of(kernel, definition, arguments["x"]), arguments, grad_y)
    assert_near(found, expected, bound=1e-12)


def test_parameters_are_those_of_a_convolution_of_as_many_groups_as_channels() -> None:
    specs = [Spec((2, 6, 8, 8))]
    plain = Conv2d(out_channels=6, kernel_size=(3, 5), groups=6)
    own = bind_inputs(DepthwiseConv2d(kernel_size=(3, 5)), specs, torch.float32).parameters
    assert own == bind_inputs(plain, specs, torch.float32).parameters
    without = DepthwiseConv2d(kernel_size=3, bias=False)
    assert bind_inputs(without, specs, torch.float32).parameters["bias"] is None


def test_worked_example() -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]])
    arguments = {
        "x": x,
        "weight": torch.tensor([[[[1.0, -1.0]]], [[[2.0, 10.0]]]]),
        "bias": torch.tensor([0.5, 0.0]),
    }
    grad_y = torch.tensor([[[[1.0, 3.0]], [[-1.0, 2.0]]]])
    found = run(DepthwiseConv2d(kernel_size=(1, 2)), arguments, grad_y)
    # 1 - 2 + 0.5, 2 - 3 + 0.5;  2 * 4 + 10 * 5, 2 * 5 + 10 * 6
    assert found["y"].tolist() == [[[[-0.5, -0.5]], [[58.0, 70.0]]]]
    # 1, -1 + 3, -3;  -2, -10 + 4, 20
    assert found["grad_x"].tolist() == [[[[1.0, 2.0, -3.0]], [[-2.0, -6.0, 20.0]]]]
    # 1 * 1 + 3 * 2, 1 * 2 + 3 * 3;  -4 + 2 * 5, -5 + 2 * 6
    assert found["grad_weight"].tolist() == [[[[7.0, 11.0]]], [[[6.0, 7.0]]]]
    assert found["grad_bias"].tolist() == [4.0, 1.0]


def test_plan_runs_it_by_aten_and_folds_a_norm_into_it() -> None:
    layers = [
        {"id": "d", "depthwise_conv2d": {"kernel_size": 3, "padding": 1}},
        {"id": "n", "batch_norm2d": {}},
    ]
    model = Model({"input": {"channels": 4}, "layers": layers})
    program = model.compile(
        (2, 4, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.5}}, device="cpu", dtype=torch.float64
    )
    assert "depthwise_conv2d [aten]" in gn.explain(program.plan)
    x, target = random_tensor((2, 2, 4, 8, 8), seed=1).unbind()
    program.step(x, target)
    w = program.weights
    convolved = F.conv2d(x, w["d.weight"], w["d.bias"], padding=1, groups=4)
    states = (w["n.running_mean"], w["n.running_var"])
    expected = F.batch_norm(convolved, *states, w["n.weight"], w["n.bias"])
    torch.testing.assert_close(program.predict(x), expected, rtol=1e-10, atol=1e-12)


def test_depthwise_conv_refuses_inputs_that_do_not_fit() -> None:
    with pytest.raises(DescriptionError, match=r"unknown field.*groups|groups.*unknown field"):
        DepthwiseConv2d(kernel_size=3, groups=2)  # type: ignore[call-arg]
    with pytest.raises(DescriptionError, match="'same' needs stride 1"):
        DepthwiseConv2d(kernel_size=3, stride=2, padding="same")
    with pytest.raises(GraphError, match="expected an input N x C x H x W, got 4x8"):
        bind_inputs(DepthwiseConv2d(kernel_size=3), [Spec((4, 8))], torch.float32)
