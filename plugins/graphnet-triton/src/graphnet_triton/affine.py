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

from typing import Any, Self

from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.kernels.patch import (
    Gradients,
    Patch,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    PatchUpsampling,
    PatchUpsamplingReLU,
)
from graphnet.layer import Kernel, Site
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

_ROWS = 64  # patches that a program takes at once
_SUMS = 256  # numbers of a gradient that a program adds up
_PROGRAMS = 264  # for the gradients of weights: two for each multiprocessor of a large GPU

Made = tuple[Tensor, Tensor, Tensor]


def _affine_shape(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return x.new_empty((x.shape[0], w.shape[1]))


def _affine(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y = _affine_shape(x, w, bias, relu)
    _multiply(x, None, w, bias, relu, y)
    return y


def _gradients_shape(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    mask: Tensor | None,
    wants_x: bool,
    wants_bias: bool,
    turned: bool,
) -> Made:
    rows, columns = w.shape
    wide = WIDE[x.dtype]
    return (
        x.new_empty(x.shape if wants_x else (0,)),
        x.new_empty((columns, rows) if turned else (rows, columns), dtype=wide),
        x.new_empty((columns if wants_bias else 0,), dtype=wide),
    )


def _gradients(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    mask: Tensor | None,
    wants_x: bool,
    wants_bias: bool,
    turned: bool,
) -> Made:
    grad_x, grad_w, grad_bias = _gradients_shape(grad, x, w, mask, wants_x, wants_bias, turned)
    if wants_x:
        _multiply(grad, mask, w.t(), None, False, grad_x)
    x, grad, mask = x.contiguous(), grad.contiguous(), None if mask is None else mask.contiguous()
    inner, outer = w.shape
    high, wide = side(inner), side(outer)
    tiles = ceil_div(inner, high) * ceil_div(outer, wide)
    blocks = ceil_div(len(x), _ROWS)
    steps = ceil_div(blocks, max(1, _PROGRAMS // tiles))
    count = ceil_div(blocks, steps)
    shares = grad_w.new_empty((count, grad_w.numel() + grad_bias.numel()))
    products.weight_gradient[ceil_div(inner, high), ceil_div(outer, wide), count](
        *(x, grad, x if mask is None else mask, shares, len(x)),
        IN=inner,
        OUT=outer,
        MASKED=mask is not None,
        BIAS=wants_bias,
        TURNED=turned,
        SUM=sums_of(x),
        FACTOR=factor_of(x),
        PRECISION=precision_of(x),
        STEPS=steps,
        BI=high,
        BO=wide,
        BM=_ROWS,
    )
    products.add_shares[(ceil_div(shares.shape[1], _SUMS),)](
        *(shares, grad_w, grad_bias if wants_bias else grad_w),
        COUNT=count,
        WEIGHT=grad_w.numel(),
        ALL=shares.shape[1],
        BLOCK=_SUMS,
    )
    return grad_x, grad_w, grad_bias


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
    "affine(Tensor x, Tensor w, Tensor? bias, bool relu) -> Tensor", _affine, _affine_shape
)
affine_gradients = register(
    "affine_gradients(Tensor grad, Tensor x, Tensor w, Tensor? mask, bool wants_x, bool wants_bias, "
    "bool turned) -> (Tensor, Tensor, Tensor)",
    _gradients,
    _gradients_shape,
)


@register_flop_formula(affine)
def _affine_flops(x: Any, w: Any, *_: Any, **__: Any) -> int:
    return 2 * int(x[0]) * int(w[0]) * int(w[1])


@register_flop_formula(affine_gradients)
def _gradients_flops(
    grad: Any, x: Any, w: Any, mask: Any, wants_x: bool, *_: Any, **__: Any
) -> int:
    return _affine_flops(x, w) * (2 if wants_x else 1)


class _Affine(Patch):
    """Where the products run, and how they are called."""

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        x = site.specs["x"]
        return kernel if x is not None and runs_on(site.device, x.dtype) else None

    def affine(self, x: Tensor, w: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
        y: Tensor = affine(x, w, bias, relu)
        return y

    def affine_gradients(
        self,
        g: Tensor,
        x: Tensor,
        w: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None,
        *,
        turned: bool,
    ) -> Gradients:
        grad_x, grad_w, grad_bias = affine_gradients(
            g, x, w, mask, "x" in wanted, "bias" in wanted, turned
        )
        return (
            grad_x if "x" in wanted else None,
            grad_w if "weight" in wanted else None,
            grad_bias if "bias" in wanted else None,
        )


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
