"""Strided kernels: the GEMM kernels on images N H W C, where pixels in blocks gain nothing.

A residual network adds images and convolves them with 3x3 between its patch layers, so its pixels stay in
rows. A patch then consists of one piece for each row of the kernel. `gemm.cpp` gathers and scatters a band of
patches at a time, in the processor's cache; torch would make up to three intermediate images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.builtin import Patch
from graphnet.sdk import Gradients, Kernel, Layout, only
from graphnet_cpu import gemm_operators as operators
from graphnet_cpu.gemm import (
    GemmConv2d,
    GemmConv2dReLU,
    GemmTransposeConv2d,
    GemmTransposeConv2dReLU,
)


class _Images(Patch):
    """Base of the strided kernels: the product and its gradients on images."""

    memory_formats: ClassVar[dict[str, torch.memory_format]] = {
        "x": torch.channels_last,
        "weight": torch.channels_last,
    }
    transposed: ClassVar[bool]

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {}

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> Tensor:
        y: Tensor = operators.patch_convolution(x, weight, bias, self.transposed, relu)
        return y

    def gradients(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None = None,
    ) -> Gradients:
        made = operators.patch_gradients(
            g, x, weight, mask, self.transposed, "x" in wanted, "bias" in wanted
        )
        return only(wanted, made)


class StridedConv2d(_Images, GemmConv2d):
    """conv2d whose stride is its kernel size, N H W C."""

    transposed: ClassVar[bool] = False


class StridedConv2dReLU(_Images, GemmConv2dReLU):
    """conv2d and relu, as StridedConv2d."""

    transposed: ClassVar[bool] = False


class StridedTransposeConv2d(_Images, GemmTransposeConv2d):
    """transpose_conv2d whose stride is its kernel size, N H W C."""

    transposed: ClassVar[bool] = True


class StridedTransposeConv2dReLU(_Images, GemmTransposeConv2dReLU):
    """transpose_conv2d and relu, as StridedTransposeConv2d."""

    transposed: ClassVar[bool] = True


KERNELS: dict[str, type[Kernel]] = {
    "strided/conv2d_relu": StridedConv2dReLU,
    "strided/transpose_conv2d_relu": StridedTransposeConv2dReLU,
    "strided/conv2d": StridedConv2d,
    "strided/transpose_conv2d": StridedTransposeConv2d,
}
