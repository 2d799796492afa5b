"""The operators of the GEMM kernels, registered so that torch's compiler calls them as they are.

torch.ops.graphnet_cpu.affine(x, w, bias, relu)
    x (M, K) times w (K, N) plus bias (N,), then relu if `relu`: (M, N).
torch.ops.graphnet_cpu.affine_gradients(grad, x, w, mask, wants_x, wants_bias, turned)
    The gradients of x, w and bias from grad (M, N), which counts only where `mask`, if given, is above 0. The
    gradients of x and bias are empty unless they are wanted; the gradient of w is (N, K) if `turned`.

torch.ops.graphnet_cpu.patch_convolution(x, weight, bias, transposed, relu)
    The convolution of images N H W C whose stride is its kernel size, or the transposed one.
torch.ops.graphnet_cpu.patch_gradients(grad, x, weight, mask, transposed, wants_x, wants_bias)
    Its gradients, as `affine_gradients` computes them.

Matrices are read in row-major order, except w, which may have any strides; images are read in channels_last.
`gemm.cpp` adds up in float32, or in float64 for float64; the gradients of w and bias have this dtype too.
bfloat16 needs even K and N.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.builtin import (
    affine_flops,
    affine_gradients_flops,
    affine_gradients_shape,
    affine_shape,
    matrix_of,
)
from graphnet.sdk import ARITHMETIC, register_operator
from graphnet.system import Native

Gradients = tuple[Tensor, Tensor, Tensor]
Form = tuple[int, int]
"""How a matrix's rows lie in memory: how many patches are side by side, in how many pieces each."""

_MATRIX = (1, 1)
_NHWC = torch.channels_last
CPP = Native(Path(__file__).with_name("gemm.cpp"))


def affine_of(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    y = affine_shape(x, w, bias, relu)
    _forward(x.contiguous(), _MATRIX, x.shape[0], w, bias, relu, y, _MATRIX)
    return y


def gradients_of(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    mask: Tensor | None,
    wants_x: bool,
    wants_bias: bool,
    turned: bool,
) -> Gradients:
    made = affine_gradients_shape(grad, x, w, mask, wants_x, wants_bias, turned)
    x, grad, mask = x.contiguous(), grad.contiguous(), None if mask is None else mask.contiguous()
    _backward(grad, _MATRIX, x, _MATRIX, x.shape[0], w, mask, made, turned)
    return made


def convolution_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, relu: bool
) -> Tensor:
    n, _, h, w = x.shape
    high, wide = weight.shape[2:]
    shape = (
        (n, weight.shape[1], h * high, w * wide)
        if transposed
        else (n, weight.shape[0], h // high, w // wide)
    )
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_NHWC)


def convolution_of(
    x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, relu: bool
) -> Tensor:
    y = convolution_shape(x, weight, bias, transposed, relu)
    if transposed and bias is not None:
        bias = bias.repeat(weight[0, 0].numel())
    x, w = x.contiguous(memory_format=_NHWC), _matrix(weight, transposed)
    x_form, y_form, rows = _forms(x, y, weight, transposed)
    _forward(x, x_form, rows, w, bias, relu, y, y_form)
    return y


def convolution_gradients_shape(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    transposed: bool,
    wants_x: bool,
    wants_bias: bool,
) -> Gradients:
    wide = ARITHMETIC[x.dtype]
    return (
        torch.empty_like(x, memory_format=_NHWC) if wants_x else x.new_empty((0,)),
        torch.empty_like(weight, dtype=wide, memory_format=_NHWC),
        x.new_empty((grad.shape[1] if wants_bias else 0,), dtype=wide),
    )


def convolution_gradients_of(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    transposed: bool,
    wants_x: bool,
    wants_bias: bool,
) -> Gradients:
    grad, x = (image.contiguous(memory_format=_NHWC) for image in (grad, x))
    mask = None if mask is None else mask.contiguous(memory_format=_NHWC)
    x_form, form, rows = _forms(x, grad, weight, transposed)
    w = _matrix(weight, transposed)
    grad_x, grad_weight, _ = convolution_gradients_shape(
        grad, x, weight, mask, transposed, wants_x, wants_bias
    )
    grad_w = grad_weight.permute(0, 2, 3, 1).view(weight.shape[0], -1)
    grad_bias = grad_w.new_empty(w.shape[1] if wants_bias else 0)
    made = (grad_x, grad_w, grad_bias)
    _backward(grad, form, x, x_form, rows, w, mask, made, not transposed)
    return (
        grad_x,
        grad_weight,
        grad_bias.view(-1, grad.shape[1]).sum(0) if wants_bias else grad_bias,
    )


def _matrix(weight: Tensor, transposed: bool) -> Tensor:
    return matrix_of(weight) if transposed else matrix_of(weight).t()


def _forms(x: Tensor, y: Tensor, weight: Tensor, transposed: bool) -> tuple[Form, Form, int]:
    """How the rows of x and of y lie in memory, and their number."""
    few = x if transposed else y
    patches, rows = (few.shape[3], weight.shape[2]), few.numel() // few.shape[1]
    return (_MATRIX, patches, rows) if transposed else (patches, _MATRIX, rows)


def _forward(
    x: Tensor,
    x_form: Form,
    rows: int,
    w: Tensor,
    bias: Tensor | None,
    relu: bool,
    y: Tensor,
    y_form: Form,
) -> None:
    shift = None if bias is None else bias.to(ARITHMETIC[x.dtype]).contiguous()
    size = (*w.shape, *w.stride())
    CPP.call("forward", x, x_form, rows, w, size, shift, relu, y, y_form, torch.get_num_threads())


def _backward(
    grad: Tensor,
    form: Form,
    x: Tensor,
    x_form: Form,
    rows: int,
    w: Tensor,
    mask: Tensor | None,
    made: Gradients,
    turned: bool,
) -> None:
    grad_x, grad_w, grad_bias = made
    CPP.call(
        *("gradients", x, x_form, grad, mask, form, rows, w, (*w.shape, *w.stride())),
        *(_wanted(grad_x), grad_w, _wanted(grad_bias), turned, torch.get_num_threads()),
    )


def _wanted(gradient: Tensor) -> Tensor | None:
    """Return None for a gradient that is not wanted. (Without rows, there is nothing to compute either.)"""
    return gradient if gradient.numel() else None


affine = register_operator(
    "affine(Tensor x, Tensor w, Tensor? bias, bool relu) -> Tensor",
    affine_of,
    affine_shape,
    namespace="graphnet_cpu",
)
affine_gradients = register_operator(
    "affine_gradients(Tensor grad, Tensor x, Tensor w, Tensor? mask, bool wants_x, bool wants_bias, "
    "bool turned) "
    "-> (Tensor, Tensor, Tensor)",
    gradients_of,
    affine_gradients_shape,
    namespace="graphnet_cpu",
)

patch_convolution = register_operator(
    "patch_convolution(Tensor x, Tensor weight, Tensor? bias, bool transposed, bool relu) -> Tensor",
    convolution_of,
    convolution_shape,
    namespace="graphnet_cpu",
)
patch_gradients = register_operator(
    "patch_gradients(Tensor grad, Tensor x, Tensor weight, Tensor? mask, bool transposed, bool wants_x, "
    "bool wants_bias) "
    "-> (Tensor, Tensor, Tensor)",
    convolution_gradients_of,
    convolution_gradients_shape,
    namespace="graphnet_cpu",
)


register_flop_formula(affine)(affine_flops)
register_flop_formula(affine_gradients)(affine_gradients_flops)


@register_flop_formula(patch_convolution)
def _convolution_flops(x: Any, weight: Any, bias: Any, transposed: bool, *_: Any, **__: Any) -> int:
    n, _, h, w = x
    a, b, high, wide = weight
    patches = n * h * w if transposed else n * (h // high) * (w // wide)
    return int(2 * patches * a * b * high * wide)


@register_flop_formula(patch_gradients)
def _convolution_gradients_flops(
    grad: Any, x: Any, weight: Any, mask: Any, transposed: bool, wants_x: bool, *_: Any, **__: Any
) -> int:
    return _convolution_flops(x, weight, None, transposed) * (2 if wants_x else 1)
