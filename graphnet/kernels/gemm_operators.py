"""The operators of the GEMM kernels, registered so that torch's compiler takes them as they stand.

torch.ops.graphnet.affine(x, w, bias, relu)
    x (M, K) times w (K, N) plus bias (N,), no less than 0 if `relu`: (M, N).
torch.ops.graphnet.affine_gradients(grad, x, w, mask, wants_x, turned)
    The gradients of x, of w and of bias from grad (M, N) where `mask`, if given, is above 0. That of x is
    empty unless `wants_x`; that of w is (N, K) if `turned`.

x, grad and mask are read in row-major order, w with any strides. `gemm.cpp` adds up in float32, or in
float64 for float64; the gradients of w and bias stay as wide. bfloat16 needs even K and N.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.kernels.operators import ARITHMETIC, register
from graphnet.native import Native

CPP = Native(Path(__file__).with_name("gemm.cpp"))


def affine_shape(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return x.new_empty((x.shape[0], w.shape[1]))


def affine_of(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y = affine_shape(x, w, bias, relu)
    shift = None if bias is None else bias.to(ARITHMETIC[x.dtype]).contiguous()
    x = x.contiguous()
    _call("forward", x, x.shape[0], w, (*w.shape, *w.stride()), shift, relu, y)
    return y


def gradients_shape(
    grad: Tensor, x: Tensor, w: Tensor, mask: Tensor | None, wants_x: bool, turned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = w.shape
    wide = ARITHMETIC[x.dtype]
    return (
        x.new_empty(x.shape if wants_x else (0,)),
        x.new_empty((columns, rows) if turned else (rows, columns), dtype=wide),
        x.new_empty((columns,), dtype=wide),
    )


def gradients_of(
    grad: Tensor, x: Tensor, w: Tensor, mask: Tensor | None, wants_x: bool, turned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_w, grad_bias = gradients_shape(grad, x, w, mask, wants_x, turned)
    x, grad, mask = x.contiguous(), grad.contiguous(), None if mask is None else mask.contiguous()
    _call(
        *("gradients", x, grad, mask, x.shape[0], w, (*w.shape, *w.stride())),
        *(grad_x if wants_x else None, grad_w, grad_bias, turned),
    )
    return grad_x, grad_w, grad_bias


def _call(name: str, x: Tensor, *arguments: Any) -> None:
    """A function of gemm.cpp for the dtype of its first argument, on torch's threads."""
    CPP.call(name, x, *arguments, torch.get_num_threads())


affine = register(
    "affine(Tensor x, Tensor w, Tensor? bias, bool relu) -> Tensor", affine_of, affine_shape
)
affine_gradients = register(
    "affine_gradients(Tensor grad, Tensor x, Tensor w, Tensor? mask, bool wants_x, bool turned) "
    "-> (Tensor, Tensor, Tensor)",
    gradients_of,
    gradients_shape,
)


@register_flop_formula(affine)
def _affine_flops(x: Any, w: Any, *_: Any, **__: Any) -> int:
    return 2 * int(x[0]) * int(w[0]) * int(w[1])


@register_flop_formula(affine_gradients)
def _gradients_flops(
    grad: Any, x: Any, w: Any, mask: Any, wants_x: bool, *_: Any, **__: Any
) -> int:
    return _affine_flops(x, w) * (2 if wants_x else 1)
