"""Patch layers as fused products: bias and relu forward; mask, data, weight and bias gradient in reverse.

These are the kernels of graphnet.builtin.kernels.patch.products, with their products in Triton; that module
says how the pixels lie in memory.

torch.ops.graphnet_triton.affine(x, w, bias, relu)
    x (M, K) times w (K, N) plus bias (N,), then relu if `relu`: (M, N).
torch.ops.graphnet_triton.affine_gradients(grad, x, w, mask, wants_x, wants_bias, turned)
    The gradients of x, w and bias from grad (M, N), which counts only where `mask`, if given, is above 0. The
    gradients of x and bias are empty unless they are wanted; the gradient of w is (N, K) if `turned`.

x, grad and mask are read in row-major order, w with any strides. Sums are in float32. float32 is multiplied
in TF32 only if torch.backends.cuda.matmul.allow_tf32 is True. The same inputs give the same bits: each
program sums its share of the rows, and the shares are added in order.
"""

from __future__ import annotations

import math
from typing import Self

from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.builtin import (
    Conv2d,
    Fused,
    PatchConv2d,
    PatchConv2dReLU,
    PatchTransposeConv2d,
    PatchTransposeConv2dReLU,
    TransposeConv2d,
    affine_flops,
    affine_gradients_flops,
    affine_gradients_shape,
    affine_shape,
)
from graphnet.sdk import Kernel, Site
from graphnet_triton.launch import (
    PROCESSORS,
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

_BLOCKS = 8  # of rows that each program needs at least to read a weight once and keep it
_STEPS = 4  # that each program needs at least to sum a large tile of a weight's gradient

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
    shares, steps = _shares_of(x, grad, grad_bias is not None)
    blocks = _gradient_blocks(x, outer)
    tiles = ceil_div(inner, blocks["BI"]), ceil_div(outer, blocks["BO"])
    products.weight_gradient[*tiles, len(shares)](
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
        **blocks,
    )
    add_up(shares, grad_w, grad_bias)


def _shares_of(x: Tensor, grad: Tensor, wants_bias: bool) -> tuple[Tensor, int]:
    """Room for the shares of x^T grad and, with the bias, of the sums of grad; the steps of each share."""
    inner, outer = x.shape[1], grad.shape[1]
    blocks = _gradient_blocks(x, outer)
    tiles = ceil_div(inner, blocks["BI"]) * ceil_div(outer, blocks["BO"])
    programs = PROCESSORS * (8 // blocks["num_warps"])  # one of 8 warps fills a multiprocessor
    count, steps = cut(len(x), blocks["BM"], tiles=tiles, programs=programs)
    return x.new_empty((count, (inner + wants_bias) * outer), dtype=WIDE[x.dtype]), steps


def _gradient_blocks(x: Tensor, outer: int) -> dict[str, int]:
    """What a program of `weight_gradient` takes at once, for x (rows, inner) and grad (rows, outer).

    All of x is read for each tile of outer columns, all of grad and its mask for each of inner ones: 64 x 64
    of 256 x 256 sums would ask four times as much of the L2 cache as of the memory, and that is too much.
    """
    rows, inner = x.shape
    # The most sums that fit into the registers of 8 warps beside the factors; grad brings a mask along.
    most_inner, most_outer = (256, 128) if _in_matrix_units(x) else (128, 64)
    high, wide = side(inner, most=most_inner), side(outer, most=most_outer)
    deep = _depth(x)
    tiles = ceil_div(inner, high) * ceil_div(outer, wide)
    if rows * tiles < _STEPS * 64 * PROCESSORS:
        # Shares as large as that are more to write and to read again than the factors.
        high, wide = side(inner), side(outer)
    elif high * wide <= 16 * 64:
        deep *= 2  # little to do in a step: it has to be worth its barriers
    return {
        "BI": high,
        "BO": wide,
        "BM": deep,
        "num_warps": 8 if high * wide > 64 * 64 else 4,
        "num_stages": 3,
    }


def _multiply(
    a: Tensor, mask: Tensor | None, b: Tensor, bias: Tensor | None, relu: bool, y: Tensor
) -> None:
    """y = m(a) b + bias, no less than 0 if `relu`."""
    a, mask = a.contiguous(), None if mask is None else mask.contiguous()
    rows, (depth, columns) = len(a), b.shape
    blocks = _long_blocks(a, columns)
    if blocks is not None:
        # As many programs as b leaves room for: beside 128 kB, one on each multiprocessor.
        program = products.long_product
        programs = PROCESSORS * max(1, 128 * 256 // (blocks["BN"] * blocks["BK"]))
        blocks["STEPS"] = ceil_div(rows, blocks["BM"] * programs)
    else:
        program, blocks = products.product, _product_blocks(a, columns)
        programs = ceil_div(rows, blocks["BM"]) * ceil_div(columns, blocks["BN"])
    program[(programs,)](
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
        **blocks,
    )


def _long_blocks(a: Tensor, columns: int) -> dict[str, int] | None:
    """What a program of `long_product` takes at once for a (rows, depth), if that is the one to use.

    Where rows are 512 bytes, `product` would read 128 kB of b from the L2 cache for each 128 kB of a and y.
    Short rows are too little to be on their way at once to one or two programs of a multiprocessor, and
    the addresses of those that are not read 16 bytes at once do not fit into registers beside the sums.
    """
    rows, depth = a.shape
    wide, deep = side(columns, most=256), side(depth, most=256)
    one_block = columns <= wide and depth <= deep and wide * deep >= 64 * 256
    in_16_bytes = a.element_size() == 2 and depth % 8 == columns % 8 == 0
    if not one_block or not in_16_bytes or rows < _BLOCKS * 64 * PROCESSORS:
        return None
    return {"BM": 64, "BN": wide, "BK": deep, "num_warps": 8, "num_stages": 1}


def _product_blocks(a: Tensor, columns: int) -> dict[str, int]:
    """What a program of `product` takes at once for a (rows, depth): all columns if it can.

    a and its mask are read for each block of columns, b for each block of rows.
    """
    rows, depth = a.shape
    most = 256 if _in_matrix_units(a) else 64
    if depth <= _depth(a):
        # A program waits for its only step: two on a multiprocessor, which 128 x 128 sums allow, take turns.
        most = min(most, 128)
    high, wide = 128, side(columns, most=most)
    for fewer, most in ((64, 128), (64, 64)):  # until there are enough programs
        if ceil_div(rows, high) * ceil_div(columns, wide) < PROCESSORS:
            high, wide = fewer, min(wide, most)
    return {
        "BM": high,
        "BN": wide,
        "BK": side(depth, most=_depth(a)),
        "num_warps": 8 if high * wide > 128 * 128 else 4,
        "num_stages": 3,
    }


def _in_matrix_units(factor: Tensor) -> bool:
    """Whether they multiply it; else its products need a thread's registers for the factors, too."""
    return factor.element_size() == 2 or precision_of(factor) == "tf32"


def _depth(factor: Tensor) -> int:
    """How many products a program adds up at once: the 128 bytes that matrix units read in a row."""
    return 128 // factor.element_size() if _in_matrix_units(factor) else 16


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
    """Base of the kernels: the places that they match, and their operators."""

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


KERNELS: dict[str, type[Kernel]] = {
    "triton/conv2d_relu": TritonConv2dReLU,
    "triton/transpose_conv2d_relu": TritonTransposeConv2dReLU,
    "triton/conv2d": TritonConv2d,
    "triton/transpose_conv2d": TritonTransposeConv2d,
}
