"""A small network with blocks of NAFNet and Restormer: training steps and predictions against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.model import Model

SHAPE = (2, 3, 12, 12)
RATE = 0.2
NETWORK: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"reflection_pad2d": {"padding": 1}},
        {"id": "stem", "conv2d": {"out_channels": 8, "kernel_size": 3}},
        # from NAFNet: norm, depthwise convolution, channel attention
        {"id": "norm", "layer_norm2d": {}},
        {"id": "deep", "depthwise_conv2d": {"kernel_size": 3, "padding": 1}},
        {"id": "gate", "simplified_channel_attention": {}},
        {"id": "first", "add": {}, "inputs": ["gate", "stem"]},
        # half the size, by two ways
        {"id": "max", "max_pool2d": {"kernel_size": 2}, "inputs": ["first"]},
        {"id": "mean", "avg_pool2d": {"kernel_size": 2}, "inputs": ["first"]},
        {"id": "low", "concat": {}, "inputs": ["max", "mean"]},
        {"id": "groups", "group_norm": {"num_groups": 4}},
        # from Restormer: norm, convolutions, attention between channels
        {"id": "free", "layer_norm2d": {"subtract_mean": False, "bias": False, "eps": 1e-5}},
        {"id": "qkv", "conv2d": {"out_channels": 24, "kernel_size": 1, "bias": False}},
        {"id": "mix", "depthwise_conv2d": {"kernel_size": 3, "padding": 1, "bias": False}},
        {"id": "attend", "transposed_attention": {"num_heads": 2}},
        {"bilinear_upsampling": {"scale_factor": 2}},
        {"replication_pad2d": {"padding": [1, 1, 1, 1]}},
        {"id": "up", "conv2d": {"out_channels": 12, "kernel_size": 3}},
        {"pixel_shuffle": {"upscale_factor": 2}},
        {"pixel_unshuffle": {"downscale_factor": 4}},
        {"id": "last", "conv2d": {"out_channels": 3, "kernel_size": 1}},
    ],
}


def network(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same, as torch states it."""
    stem = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), w["stem.weight"], w["stem.bias"])
    y = F.layer_norm(stem.permute(0, 2, 3, 1), (8,), w["norm.weight"], w["norm.bias"], 1e-6)
    y = F.conv2d(y.permute(0, 3, 1, 2), w["deep.weight"], w["deep.bias"], padding=1, groups=8)
    gate = F.conv2d(F.adaptive_avg_pool2d(y, 1), w["gate.weight"], w["gate.bias"])
    y = y * gate + stem
    y = torch.cat((F.max_pool2d(y, 2), F.avg_pool2d(y, 2)), 1)
    y = F.group_norm(y, 4, w["groups.weight"], w["groups.bias"])
    spread = torch.sqrt(y.var(1, keepdim=True, unbiased=False) + 1e-5)
    y = y / spread * w["free.weight"].view(-1, 1, 1)
    y = F.conv2d(F.conv2d(y, w["qkv.weight"]), w["mix.weight"], padding=1, groups=24)
    q, k, v = (part.reshape(2, 2, 4, 36) for part in y.chunk(3, 1))
    attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * w["attend.temperature"]
    y = (attention.softmax(-1) @ v).reshape(2, 8, 6, 6)
    y = F.interpolate(y, scale_factor=2.0, mode="bilinear")
    y = F.conv2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), w["up.weight"], w["up.bias"])
    y = F.pixel_unshuffle(F.pixel_shuffle(y, 2), 4)
    return F.conv2d(y, w["last.weight"], w["last.bias"])


@pytest.mark.parametrize("chosen", ["auto", "reference"])
def test_steps_and_predictions_equal_torch(chosen: str) -> None:
    program = Model(NETWORK).compile(
        SHAPE,
        loss="mse",
        optimizer={"sgd": {"lr": RATE}},
        device="cpu",
        dtype=torch.float64,
        kernels=chosen,
    )
    weights = {name: t.detach().clone().requires_grad_() for name, t in program.weights.items()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
        target = torch.rand((2, 3, 6, 6), generator=generator, dtype=torch.float64)
        loss = F.mse_loss(network(weights, x), target)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight -= RATE * gradient
        torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-11, atol=0)
    for name, weight in weights.items():
        torch.testing.assert_close(program.weights[name], weight.detach(), rtol=1e-9, atol=1e-12)
    expected = network(weights, x).detach()
    torch.testing.assert_close(program.predict(x), expected, rtol=1e-9, atol=1e-11)


def test_every_layer_with_a_kernel_gets_it_in_a_plan() -> None:
    plan = Model(NETWORK).plan(SHAPE, loss="mse", optimizer=SGD(lr=RATE))
    titles = {step.call.title for step in plan.steps}
    for name in (
        "layer_norm2d",
        "depthwise_conv2d",
        "max_pool2d",
        "avg_pool2d",
        "group_norm",
        "bilinear_upsampling",
        "pixel_shuffle",
        "pixel_unshuffle",
    ):
        assert f"{name} [aten]" in titles


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"saved_dtype": "bfloat16"}])
def test_narrow_steps_are_near_those_of_float32(settings: dict[str, Any]) -> None:
    common: dict[str, Any] = {"loss": "mse", "optimizer": {"sgd": {"lr": RATE}}, "device": "cpu"}
    wide, narrow = (Model(NETWORK).compile(SHAPE, **common, **s) for s in ({}, settings))
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(shape, generator=generator) for shape in (SHAPE, (2, 3, 6, 6)))
    before = {name: tensor.clone() for name, tensor in wide.weights.items()}
    torch.testing.assert_close(narrow.step(x, target), wide.step(x, target), rtol=0.02, atol=0)
    for name, start in before.items():
        change = wide.weights[name] - start
        error = (narrow.weights[name] - wide.weights[name]).norm()
        assert error <= 0.1 * change.norm(), name
