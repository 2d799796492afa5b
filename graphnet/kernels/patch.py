"""Patch kernels: convolutions whose stride is their kernel size, as one matrix product on a view.

Where the places of the kernel do not overlap and nothing is padded, unfold only moves pixels, and fold
moves them back. With the pixels of a patch next to each other in memory (see graphnet.layout) neither has
anything left to do: conv2d's eq. 1 is y = X W^T + b on a view X of x, eq. 2 is dW = g^T X, eq. 3 dX = g W,
and the transposed convolution is the same with the roles of x and y exchanged. Weights are best stored in
channels_last: then their matrices are views too.

M is the number of patches, K = kernel height * width * C of the patch's channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.layer import Kernel, Site
from graphnet.layers.conv import Conv2d, TransposeConv2d
from graphnet.layout import Layout

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class _Patch(Kernel):
    """One matrix product; its two directions state `product` and `gradients`."""

    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"weight": torch.channels_last}
    kernel_size: tuple[int, int]

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """y from x, both in blocks."""
        raise NotImplementedError

    def gradients(self, g: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]) -> Gradients:
        """The gradients of x, weight and bias from that of the product."""
        raise NotImplementedError


def _matrix(weight: Tensor) -> Tensor:
    """The weight (A, B, kh, kw) as (A, kh * kw * B)."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _unmatrix(matrix: Tensor, weight: Tensor) -> Tensor:
    """The transpose of `_matrix`: a gradient in the weight's shape."""
    a, b, high, wide = weight.shape
    return matrix.view(a, high, wide, b).permute(0, 3, 1, 2)


class _Convolution(_Patch):
    """conv2d with stride == kernel_size, no padding, dilation or groups."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (self.kernel_size,), "y": ()}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, Conv2d)
        plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.pads() == (0, 0, 0, 0)
        if layer.stride != layer.kernel_size or not plain or x is None:
            return None
        whole = all(n % k == 0 for n, k in zip(x.shape[2:], layer.kernel_size, strict=True))
        return cls(kernel_size=layer.kernel_size) if whole and x.numel else None

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        w = _matrix(weight)
        patches = x.reshape(-1, w.shape[1])
        y = patches @ w.t() if bias is None else torch.addmm(bias, patches, w.t())
        return y.view(*x.shape[:-3], -1)

    def gradients(self, g: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]) -> Gradients:
        w = _matrix(weight)
        g = g.reshape(-1, w.shape[0])
        grad_x = grad_weight = None
        if "x" in wanted:
            grad_x = (g @ w).view(x.shape)
        if "weight" in wanted:
            grad_weight = _unmatrix(g.t() @ x.reshape(-1, w.shape[1]), weight)
        return grad_x, grad_weight, g.sum(0) if "bias" in wanted else None


class _TransposeConvolution(_Patch):
    """transpose_conv2d with stride == kernel_size, no padding, dilation or groups."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (), "y": (self.kernel_size,)}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, TransposeConv2d)
        plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
        if layer.stride != layer.kernel_size or not plain or layer.output_padding != (0, 0):
            return None
        return cls(kernel_size=layer.kernel_size) if x is not None and x.numel else None

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        w = _matrix(weight)
        high, wide = self.kernel_size
        pixels = x.reshape(-1, w.shape[0])
        y = pixels @ w if bias is None else torch.addmm(bias.repeat(high * wide), pixels, w)
        return y.view(*x.shape[:-1], high, wide, -1)

    def gradients(self, g: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]) -> Gradients:
        w = _matrix(weight)
        g = g.reshape(-1, w.shape[1])
        grad_x = grad_weight = None
        if "x" in wanted:
            grad_x = (g @ w.t()).view(x.shape)
        if "weight" in wanted:
            grad_weight = _unmatrix(x.reshape(-1, w.shape[0]).t() @ g, weight)
        grad_bias = g.view(-1, weight.shape[1]).sum(0) if "bias" in wanted else None
        return grad_x, grad_weight, grad_bias


class _Plain(_Patch):
    """The product alone."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.product(x, weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients(grad_y, x, weight, wanted)


class _ReLU(_Patch):
    """The product and max(., 0): mask, data, weight and bias gradient are one step."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.product(x, weight, bias).relu_()

    def backward(
        self, grad_y: Tensor, x: Tensor, y: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        g = torch.ops.aten.threshold_backward.default(grad_y, y, 0)
        return self.gradients(g, x, weight, wanted)


class PatchConv2d(_Plain, _Convolution):
    """conv2d as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "conv2d(x, weight, bias)"


class PatchConv2dReLU(_ReLU, _Convolution):
    """conv2d and relu as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "relu(conv2d(x, weight, bias))"


class PatchTransposeConv2d(_Plain, _TransposeConvolution):
    """transpose_conv2d as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "transpose_conv2d(x, weight, bias)"


class PatchTransposeConv2dReLU(_ReLU, _TransposeConvolution):
    """transpose_conv2d and relu as one matrix product, as PatchTransposeConv2d."""

    replaces = "relu(transpose_conv2d(x, weight, bias))"


class PatchUpsampling(PatchTransposeConv2d):
    """upsampling, as PatchTransposeConv2d."""

    replaces = "upsampling(x, weight, bias)"


class PatchUpsamplingReLU(PatchTransposeConv2dReLU):
    """upsampling and relu, as PatchTransposeConv2d."""

    replaces = "relu(upsampling(x, weight, bias))"


KERNELS: dict[str, type[Kernel]] = {
    "patch/conv2d_relu": PatchConv2dReLU,
    "patch/transpose_conv2d_relu": PatchTransposeConv2dReLU,
    "patch/upsampling_relu": PatchUpsamplingReLU,
    "patch/conv2d": PatchConv2d,
    "patch/transpose_conv2d": PatchTransposeConv2d,
    "patch/upsampling": PatchUpsampling,
}
