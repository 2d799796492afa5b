"""Patch layers as fused products: bias and relu forward; mask, data, weight and bias gradient in reverse.

The kernels of graphnet.kernels.patch, which tells how the pixels lie, with their products in Triton.

torch.ops.graphnet_triton.affine(x, w, bias, relu)
    x (M, K) times w (K, N) plus bias (N,), no less than 0 if `relu`: (M, N).
torch.ops.graphnet_triton.affine_gradients(grad, x, w, mask, wants_x, wants_bias, turned)
    The gradients of x, of w and of bias from grad (M, N) where `mask`, if given, is above 0. Those of x and
    bias are empty unless they are wanted; that of w is (N, K) if `turned`.

x, grad and mask are read in row-major order, w with any strides. Sums are in float32; float32 itself is
multiplied in TF32 only where torch.backends.cuda.matmul.allow_tf32 says so. The same inputs give the same
bits: each program sums its share of the rows, and the shares are added in order.
"""

from __future__ import annotations

import math
from typing import Self

from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.kernels.patch import (
    Fused,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    PatchUpsampling,
    PatchUpsamplingReLU,
    affine_flops,
    affine_gradients_flops,
    affine_gradients_shape,
    affine_shape,
)
from graphnet.layer import Kernel, Site
from graphnet.layers.conv import Conv2d, TransposeConv2d
from graphnet_triton.launch import (
    WIDE,
    ceil_div,
    factor_of,
    precision_of,
    register,
    runs_on,
    side,
    sums_of,
)
from graphnet_triton.programs import products
from graphnet_triton.shares import add_up, cut

_ROWS = 64  # patches that a program takes at once

Made = tuple[Tensor, Tensor, Tensor]


def _affine(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y = affine_shape(x, w, bias, relu)
    _multiply(x, None, w, bias, relu, y)
    return y


def _gradients(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    mask: Tensor | None,
    wants_x: bool,
    wants_bias: bool,
    turned: bool,
) -> Made:
    grad_x, grad_w, grad_bias = affine_gradients_shape(
        grad, x, w, mask, wants_x, wants_bias, turned
    )
    if wants_x:
        _multiply(grad, mask, w.t(), None, False, grad_x)
    _sum_products(x, grad, mask, grad_w, grad_bias if wants_bias else None, turned=turned)
    return grad_x, grad_w, grad_bias


def _sum_products(
    x: Tensor,
    grad: Tensor,
    mask: Tensor | None,
    grad_w: Tensor,
    grad_bias: Tensor | None,
    *,
    turned: bool,
) -> None:
    """grad_w = x^T m(grad), or the other way round if `turned`; into grad_bias the sum of m(grad)."""
    x, grad, mask = x.contiguous(), grad.contiguous(), None if mask is None else mask.contiguous()
    inner, outer = x.shape[1], grad.shape[1]
    high, wide = side(inner), side(outer)
    shares, steps = _shares_of(x, grad, grad_bias is not None)
    products.weight_gradient[ceil_div(inner, high), ceil_div(outer, wide), len(shares)](
        *(x, grad, x if mask is None else mask, shares, len(x)),
        IN=inner,
        OUT=outer,
        MASKED=mask is not None,
        BIAS=grad_bias is not None,
        TURNED=turned,
        SUM=sums_of(x),
        FACTOR=factor_of(x),
        PRECISION=precision_of(x),
        STEPS=steps,
        BI=high,
        BO=wide,
        BM=_ROWS,
    )
    add_up(shares, grad_w, grad_bias)


def _shares_of(x: Tensor, grad: Tensor, wants_bias: bool) -> tuple[Tensor, int]:
    """Room for the shares of x^T grad and, with the bias, of the sums of grad; the steps of each share."""
    inner, outer = x.shape[1], grad.shape[1]
    tiles = ceil_div(inner, side(inner)) * ceil_div(outer, side(outer))
    count, steps = cut(len(x), _ROWS, tiles=tiles)
    return x.new_empty((count, (inner + wants_bias) * outer), dtype=WIDE[x.dtype]), steps


def _multiply(
    a: Tensor, mask: Tensor | None, b: Tensor, bias: Tensor | None, relu: bool, y: Tensor
) -> None:
    """y = m(a) b + bias, no less than 0 if `relu`."""
    a, mask = a.contiguous(), None if mask is None else mask.contiguous()
    rows, (depth, columns) = len(a), b.shape
    wide = side(columns)
    products.product[ceil_div(rows, _ROWS), ceil_div(columns, wide)](
        *(a, a if mask is None else mask, b, a if bias is None else bias.contiguous(), y),
        *(rows, *b.stride()),
        DEPTH=depth,
        COLUMNS=columns,
        MASKED=mask is not None,
        BIAS=bias is not None,
        RELU=relu,
        SUM=sums_of(a),
        FACTOR=factor_of(a),
        PRECISION=precision_of(a),
        BM=_ROWS,
        BN=wide,
        BK=side(depth),
    )


affine = register(
    "affine(Tensor x, Tensor w, Tensor? bias, bool relu) -> Tensor", _affine, affine_shape
)
affine_gradients = register(
    "affine_gradients(Tensor grad, Tensor x, Tensor w, Tensor? mask, bool wants_x, bool wants_bias, "
    "bool turned) -> (Tensor, Tensor, Tensor)",
    _gradients,
    affine_gradients_shape,
    scratch=lambda grad, x, w, mask, wants_x, wants_bias, turned: [
        _shares_of(x, grad, wants_bias)[0]
    ],
)


register_flop_formula(affine)(affine_flops)
register_flop_formula(affine_gradients)(affine_gradients_flops)


class _Affine(Fused):
    """Where the products run, and what computes them."""

    product_operator = affine
    gradients_operator = affine_gradients

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        layer, x = site.layers[-1], site.specs["x"]
        if kernel is None or x is None:
            return None
        assert isinstance(layer, (Conv2d, TransposeConv2d))
        pixels, taps = x.numel // x.shape[1], math.prod(layer.kernel_size)
        pixels = pixels * taps if isinstance(layer, TransposeConv2d) else pixels // taps
        return kernel if runs_on(site.device, x, pixels * layer.out_channels) else None


class TritonConv2d(_Affine, PatchConv2d):
    """conv2d as one product."""


class TritonConv2dReLU(_Affine, PatchConv2dReLU):
    """conv2d and relu as one product."""


class TritonTransposeConv2d(_Affine, PatchTransposeConv2d):
    """transpose_conv2d as one product."""


class TritonTransposeConv2dReLU(_Affine, PatchTransposeConv2dReLU):
    """transpose_conv2d and relu as one product."""


class TritonUpsampling(_Affine, PatchUpsampling):
    """upsampling as one product."""


class TritonUpsamplingReLU(_Affine, PatchUpsamplingReLU):
    """upsampling and relu as one product."""


KERNELS: dict[str, type[Kernel]] = {
    "triton/conv2d_relu": TritonConv2dReLU,
    "triton/transpose_conv2d_relu": TritonTransposeConv2dReLU,
    "triton/upsampling_relu": TritonUpsamplingReLU,
    "triton/conv2d": TritonConv2d,
    "triton/transpose_conv2d": TritonTransposeConv2d,
    "triton/upsampling": TritonUpsampling,
}
