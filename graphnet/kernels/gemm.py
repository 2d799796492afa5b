"""GEMM kernels: the patch kernels on a CPU, with their products, bias, relu and its mask in one pass.

What the patch kernels leave to one operator after the other - product, relu, mask, two products back, the
sum for the bias - `gemm.cpp` does band by band of rows, while they are in the processor's cache. bfloat16 is
multiplied in pairs and added up in float32; where the processor has matrix units for it (AMX), torch's
products are faster, and no kernel here matches. It is compiled for this machine by the first plan that can
use it; without a C++ compiler no kernel matches either.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch

from graphnet.kernels import gemm_operators as operators
from graphnet.kernels.patch import (
    Fused,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    PatchUpsampling,
    PatchUpsamplingReLU,
)
from graphnet.layer import Kernel, Site, layer_names, parse_pattern
from graphnet.layers.activation import ReLU
from graphnet.layers.conv import Conv2d, TransposeConv2d, Upsampling
from graphnet.operators import ARITHMETIC
from graphnet.spec import Spec

_LEAST_ROWS = 96  # patches: fewer are done before the threads have begun
_LAYERS: dict[str, type[Any]] = {
    "conv2d": Conv2d,
    "transpose_conv2d": TransposeConv2d,
    "upsampling": Upsampling,
}


class _Gemm(Fused):
    """Where the products fit, and what computes them."""

    product_operator = operators.affine
    gradients_operator = operators.affine_gradients

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit that `match` takes: patches of 2x2, with and without bias."""
        *outer, inner = layer_names(parse_pattern(cls))
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
    if x.dtype == torch.bfloat16 and (torch.cpu._is_amx_tile_supported() or not _even(weight)):
        return False
    patches = x.numel // x.shape[1]
    if isinstance(layer, Conv2d):
        patches //= math.prod(layer.kernel_size)
    return patches >= _LEAST_ROWS


def _even(weight: Spec) -> bool:
    """Whether both sides of the product come in pairs, whichever way the convolution goes."""
    first, second, high, wide = weight.shape
    return first % 2 == 0 and second * high * wide % 2 == 0


class GemmConv2d(_Gemm, PatchConv2d):
    """conv2d as one matrix product, as PatchConv2d."""


class GemmConv2dReLU(_Gemm, PatchConv2dReLU):
    """conv2d and relu as one matrix product, as PatchConv2d."""


class GemmTransposeConv2d(_Gemm, PatchTransposeConv2d):
    """transpose_conv2d as one matrix product, as PatchTransposeConv2d."""


class GemmTransposeConv2dReLU(_Gemm, PatchTransposeConv2dReLU):
    """transpose_conv2d and relu as one matrix product, as PatchTransposeConv2d."""


class GemmUpsampling(_Gemm, PatchUpsampling):
    """upsampling as one matrix product, as PatchTransposeConv2d."""


class GemmUpsamplingReLU(_Gemm, PatchUpsamplingReLU):
    """upsampling and relu as one matrix product, as PatchTransposeConv2d."""


KERNELS: dict[str, type[Kernel]] = {
    "gemm/conv2d_relu": GemmConv2dReLU,
    "gemm/transpose_conv2d_relu": GemmTransposeConv2dReLU,
    "gemm/upsampling_relu": GemmUpsamplingReLU,
    "gemm/conv2d": GemmConv2d,
    "gemm/transpose_conv2d": GemmTransposeConv2d,
    "gemm/upsampling": GemmUpsampling,
}
