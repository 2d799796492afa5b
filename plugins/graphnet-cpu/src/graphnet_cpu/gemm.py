"""GEMM kernels: the patch kernels on a CPU, with their products, bias, relu and its mask in one pass.

The patch kernels call one operator after the other: product, relu, mask, two products of the reverse pass,
the sum for the bias. `gemm.cpp` does all of these for a band of rows while the band is in the processor's
cache. bfloat16 is multiplied in pairs and added up in float32; if the processor has matrix units for it
(AMX), torch's products are faster, and no kernel here matches bfloat16. The file is compiled for this machine
when a plan first can use it; without a C++ compiler, no kernel matches.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch

from graphnet.builtin import (
    MSE,
    Conv2d,
    Fused,
    PatchChain,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    ReLU,
    Sigmoid,
    TransposeConv2d,
)
from graphnet.sdk import ARITHMETIC, Kernel, Site, Spec, layer_names
from graphnet_cpu import chain_operators
from graphnet_cpu import gemm_operators as operators

_LEAST_ROWS = 96  # patches: fewer are done before the threads have begun
_LAYERS: dict[str, type[Any]] = {
    "conv2d": Conv2d,
    "transpose_conv2d": TransposeConv2d,
}


class _Gemm(Fused):
    """Base of the GEMM kernels: the places that they match, and their operators."""

    product_operator = operators.affine
    gradients_operator = operators.affine_gradients

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit that `match` takes: patches of 2x2, with and without bias."""
        *outer, inner = layer_names(cls.pattern)
        layers = [
            _LAYERS[inner](out_channels=4, kernel_size=(2, 2), stride=(2, 2), bias=bias)
            for bias in (True, False)
        ]
        return [((ReLU(), layer) if outer else layer, [(2, 4, 20, 12)]) for layer in layers]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        if kernel is None or site.device.type != "cpu" or not _pays(site):
            return None
        return kernel if operators.CPP.usable() else None


def _pays(site: Site) -> bool:
    layer = site.layers[-1]
    x, weight = site.specs["x"], site.specs["weight"]
    if x is None or weight is None or x.dtype not in ARITHMETIC:
        return False
    if x.dtype == torch.bfloat16 and not _multiplies_bfloat16(weight):
        return False
    patches = x.numel // x.shape[1]
    if isinstance(layer, Conv2d):
        patches //= math.prod(layer.kernel_size)
    return patches >= _LEAST_ROWS


def _multiplies_bfloat16(*weights: Spec) -> bool:
    """Whether both sides of all products come in pairs, and torch has no matrix units for them."""
    sides = [
        side for first, *rest in (w.shape for w in weights) for side in (first, math.prod(rest))
    ]
    return not torch.cpu._is_amx_tile_supported() and all(side % 2 == 0 for side in sides)


class GemmConv2d(_Gemm, PatchConv2d):
    """conv2d as one matrix product, as PatchConv2d."""


class GemmConv2dReLU(_Gemm, PatchConv2dReLU):
    """conv2d and relu as one matrix product, as PatchConv2d."""


class GemmTransposeConv2d(_Gemm, PatchTransposeConv2d):
    """transpose_conv2d as one matrix product, as PatchTransposeConv2d."""


class GemmTransposeConv2dReLU(_Gemm, PatchTransposeConv2dReLU):
    """transpose_conv2d and relu as one matrix product, as PatchTransposeConv2d."""


class GemmChain(PatchChain):
    """A chain of patch layers with its mean squared error; each thread computes some patches at a time."""

    operator = chain_operators.patch_chain

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit: down and up, down alone, up and down and up."""
        down, up = (
            layer(out_channels=channels, kernel_size=(2, 2), stride=(2, 2), bias=bias)
            for layer, channels, bias in ((Conv2d, 6, True), (TransposeConv2d, 4, False))
        )
        deeper = Conv2d(out_channels=4, kernel_size=(2, 1), stride=(2, 1))
        image, wide, own = (2, 4, 20, 24), (2, 4, 40, 48), [(6, 4, 2, 2), (6,)]
        return [
            ((MSE(), Sigmoid(), up, ReLU(), down), [image, *own, (6, 4, 2, 2), image]),
            ((MSE(), ReLU(), deeper, down), [image, *own, (4, 6, 2, 1), (4,), (2, 4, 5, 12)]),
            ((MSE(), up, down, ReLU(), up), [image, (4, 4, 2, 2), *own, (6, 4, 2, 2), wide]),
        ]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel = super().match(site)
        x = site.specs["x"]
        if kernel is None or x is None or site.device.type != "cpu":
            return None
        parameters: Any = site.specs["parameters"]
        weights = [spec for spec in parameters if len(spec.shape) == 4]
        few = kernel.patches(x) < _LEAST_ROWS
        if few or (x.dtype == torch.bfloat16 and not _multiplies_bfloat16(*weights)):
            return None
        return kernel if chain_operators.CPP.usable() else None


KERNELS: dict[str, type[Kernel]] = {
    "gemm/mse_chain": GemmChain,
    "gemm/conv2d_relu": GemmConv2dReLU,
    "gemm/transpose_conv2d_relu": GemmTransposeConv2dReLU,
    "gemm/conv2d": GemmConv2d,
    "gemm/transpose_conv2d": GemmTransposeConv2d,
}
