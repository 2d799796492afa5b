"""Networks for signals and volumes: training steps, predictions and kernels against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.model import Model

RATE = 0.2
INTERPOLATE = {1: "linear", 3: "trilinear"}
SIZES = {1: (10,), 3: (6, 4, 8)}


def description(n: int) -> dict[str, Any]:
    return {
        "input": {"channels": 2},
        "layers": [
            {
                f"conv{n}d": {
                    "out_channels": 4,
                    "kernel_size": 3,
                    "padding": 1,
                    "padding_mode": "reflect",
                }
            },
            {f"batch_norm{n}d": {}},
            "relu",
            {f"max_pool{n}d": {"kernel_size": 2}},
            {f"depthwise_conv{n}d": {"kernel_size": 3, "padding": 1}},
            {f"layer_norm{n}d": {}},
            {"group_norm": {"num_groups": 2}},
            {f"{INTERPOLATE[n]}_upsampling": {"scale_factor": 2}},
            {f"avg_pool{n}d": {"kernel_size": 2}},
            {f"transpose_conv{n}d": {"out_channels": 3, "kernel_size": 2, "stride": 2}},
        ],
    }


def network(n: int, w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same, as torch states it."""

    def of(function: str) -> Any:
        return getattr(F, f"{function}{n}d")

    def parameters(layer: str) -> tuple[Tensor, Tensor]:
        return w[f"{layer}_1.weight"], w[f"{layer}_1.bias"]

    x = of("conv")(F.pad(x, (1, 1) * n, mode="reflect"), *parameters(f"conv{n}d"))
    y = F.batch_norm(x, None, None, *parameters(f"batch_norm{n}d"), training=True).relu()
    y = of("max_pool")(y, 2)
    y = of("conv")(y, *parameters(f"depthwise_conv{n}d"), padding=1, groups=4)
    y = F.layer_norm(y.movedim(1, -1), (4,), *parameters(f"layer_norm{n}d"), 1e-6).movedim(-1, 1)
    y = F.group_norm(y, 2, *parameters("group_norm"))
    y = F.interpolate(y, scale_factor=2, mode=INTERPOLATE[n])
    transposed: Tensor = of("conv_transpose")(
        of("avg_pool")(y, 2), *parameters(f"transpose_conv{n}d"), stride=2
    )
    return transposed


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("n", [1, 3])
def test_training_steps_equal_torch(n: int, kernels: str) -> None:
    shape = (2, 2, *SIZES[n])
    program = Model(description(n), seed=1).compile(
        shape,
        loss="mse",
        optimizer=SGD(lr=RATE),
        dtype=torch.float64,
        kernels=kernels,
        device="cpu",
    )
    trained = [name for name in program.weights if not name.split(".")[1].startswith("running")]
    weights = {name: program.weights[name].clone().requires_grad_() for name in trained}
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        target = torch.rand((2, 3, *SIZES[n]), generator=generator, dtype=torch.float64)
        with torch.enable_grad():
            loss = F.mse_loss(network(n, weights, x), target)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight -= RATE * gradient
        torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-11, atol=0)
    for name, weight in weights.items():
        torch.testing.assert_close(program.weights[name], weight.detach(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("n", [1, 3])
def test_every_layer_with_a_kernel_gets_it_in_a_plan(n: int) -> None:
    plan = Model(description(n)).plan((2, 2, *SIZES[n]), loss="mse", optimizer=SGD(lr=RATE))
    titles = {step.call.title for step in plan.steps}
    without = [
        name
        for layer in description(n)["layers"]
        for name in (layer if isinstance(layer, dict) else [layer])
        if f"{name} [aten]" not in titles
    ]
    assert without == []
