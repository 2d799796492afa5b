"""Every kernel passes the conformance kit, on samples that it takes."""

from __future__ import annotations

from typing import Any

import pytest
from graphnet_triton import (
    affine,
    batch_norm,
    chain,
    convolution,
    fused_convolution,
    gate,
    layer_norm,
    mse,
)

from graphnet.builtin import (
    MSE,
    BatchNorm2d,
    Conv2d,
    LayerNorm2d,
    ReLU,
    Sigmoid,
    TransposeConv2d,
)
from graphnet.builtin.layers.split import SimpleGate
from graphnet.sdk import Kernel
from graphnet.testing import Sample, assert_checks_pass

KERNELS: dict[str, type[Kernel]] = {
    **affine.KERNELS,
    **chain.KERNELS,
    **convolution.KERNELS,
    **fused_convolution.KERNELS,
    **mse.KERNELS,
    **batch_norm.KERNELS,
    **layer_norm.KERNELS,
    **gate.KERNELS,
}
IMAGE = (2, 4, 4, 6)


def patches(cls: type[Any]) -> list[Any]:
    return [cls(out_channels=3, kernel_size=2, stride=2, bias=bias) for bias in (True, False)]


DOWN, UP = (
    cls(out_channels=2, kernel_size=(2, 2), stride=(2, 2), bias=bias)
    for cls, bias in ((Conv2d, True), (TransposeConv2d, False))
)
WEIGHTS = [(2, 2, 2, 2), (2,), (2, 2, 2, 2)]
CHAINS = [Sample((MSE(), Sigmoid(), UP, ReLU(), DOWN), [(1, 2, 4, 6), *WEIGHTS, (1, 2, 4, 6)])]
LAYERS: dict[str, list[Any]] = {
    "conv2d": patches(Conv2d),
    "transpose_conv2d": patches(TransposeConv2d),
    "batch_norm2d": [BatchNorm2d(), BatchNorm2d(affine=False, momentum=0.3)],
    "layer_norm2d": [
        LayerNorm2d(),
        LayerNorm2d(bias=False, subtract_mean=False, eps=1e-5),
        LayerNorm2d(affine=False),
    ],
    "simple_gate": [SimpleGate()],
}


def samples(name: str) -> list[Sample]:
    own = name.removeprefix("triton/")
    if own == "mse_chain":
        return CHAINS
    if own == "mse":
        return [Sample(MSE(), [IMAGE, IMAGE])]
    if own == "conv2d_bias_relu":
        conv = Conv2d(out_channels=3, kernel_size=(3, 2), stride=(1, 2), padding=(1, 1))
        return [Sample((ReLU(), conv), [IMAGE])]
    if own.startswith("fused_conv2d"):
        convs = [
            Conv2d(out_channels=3, kernel_size=(3, 3), stride=(1, 2), padding=(1, 0)),
            Conv2d(out_channels=5, kernel_size=(3, 3), padding=(1, 1), dilation=(1, 2), bias=False),
        ]
        if own.endswith("_relu"):
            return [Sample((ReLU(), convs[0]), [IMAGE])]
        return [Sample(conv, [(2, 4, 5, 6)]) for conv in convs]
    layers = LAYERS[own.removesuffix("_relu")]
    if own.endswith("_relu"):  # with a bias, where the layer has one
        return [Sample((ReLU(), layers[0]), [IMAGE])]
    return [Sample(layer, [IMAGE]) for layer in layers]


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_passes_the_kit(name: str) -> None:
    assert_checks_pass(KERNELS[name], samples(name))
