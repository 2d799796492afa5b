"""The operators of the Winograd kernels, registered so that torch's compiler calls them as they are.

torch.ops.graphnet_cpu.winograd_convolution(x, weight, turned, padding, bias, mask, add, relu)
    x convolved with the kernels (O, C, 3, 3), plus bias, plus the image `add`, then relu if `relu`: an image
    (N, O, H', W'). `turned` is for the gradient of x: the kernels are turned by 180 degrees, from O channels
    to C. With `mask`, an element of x counts only where the mask is above 0.
torch.ops.graphnet_cpu.winograd_convolution_(y, x, weight, turned, padding, bias, mask, adds)
    Writes the same into y, an image of that size, or adds it to y if `adds`.
torch.ops.graphnet_cpu.winograd_gradients(x, grad, padding, mask)
    The gradients of weight (O, C, 3, 3) and bias (O,).

Tensors that were kept from the forward pass, the mask and x of the gradients, may be bfloat16 beside float32.
Images may have any strides and are read in channels_last; `padding` has the rows above x and the columns left
of x. `winograd.cpp` sums in float32, or in float64 for float64; the gradients of weights have this dtype
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.sdk import ARITHMETIC, no_results, register_operator
from graphnet.system import Native

CPP = Native(Path(__file__).with_name("winograd.cpp"))
POSITIONS = 36
TILE = 4


def convolution_shape(
    x: Tensor,
    weight: Tensor,
    turned: bool,
    padding: Sequence[int],
    bias: Tensor | None,
    mask: Tensor | None,
    add: Tensor | None,
    relu: bool,
) -> Tensor:
    size = [n + 2 * pad - 2 for n, pad in zip(x.shape[2:], padding, strict=True)]
    return _image((x.shape[0], weight.shape[1 if turned else 0], *size), like=x)


def convolution(
    x: Tensor,
    weight: Tensor,
    turned: bool,
    padding: Sequence[int],
    bias: Tensor | None,
    mask: Tensor | None,
    add: Tensor | None,
    relu: bool,
) -> Tensor:
    y = convolution_shape(x, weight, turned, padding, bias, mask, add, relu)
    _convolve(x, weight, turned, padding, bias, mask, add, relu, y)
    return y


def convolution_into(
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    turned: bool,
    padding: Sequence[int],
    bias: Tensor | None,
    mask: Tensor | None,
    adds: bool,
) -> None:
    dense = _nhwc(y)
    add = dense if adds else None
    _convolve(x, weight, turned, padding, bias, mask, add, False, dense)
    if dense is not y:
        y.copy_(dense)


def _convolve(
    x: Tensor,
    weight: Tensor,
    turned: bool,
    padding: Sequence[int],
    bias: Tensor | None,
    mask: Tensor | None,
    add: Tensor | None,
    relu: bool,
    y: Tensor,
) -> None:
    x, shift = _nhwc(x), None if bias is None else bias.to(ARITHMETIC[x.dtype]).contiguous()
    (mask,), kept = _as_kept(x.dtype, mask)
    _call(
        *(f"forward{kept}", x, mask, _nhwc_sizes(x), weight, weight.stride(), turned),
        *(shift, _nhwc(add), relu, y, _nhwc_sizes(y), *padding),
    )


def gradients_shape(
    x: Tensor, grad: Tensor, padding: Sequence[int], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    dtype = ARITHMETIC[grad.dtype]
    channels = grad.shape[1]
    weight = _image((channels, x.shape[1], 3, 3), like=x, dtype=dtype)
    return weight, x.new_empty((channels,), dtype=dtype)


def gradients(
    x: Tensor, grad: Tensor, padding: Sequence[int], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    weight, bias = gradients_shape(x, grad, padding, mask)
    grad = _nhwc(grad)
    (mask, x), kept = _as_kept(grad.dtype, mask, x)
    _call(
        *(f"gradients{kept}", grad, mask, _nhwc_sizes(grad), x, _nhwc_sizes(x)),
        *(weight, bias, *padding),
    )
    return weight, bias


def _as_kept(dtype: torch.dtype, *kept: Any) -> tuple[list[Any], str]:
    """Return kept tensors as N H W C in one dtype, and the ending of the functions for this dtype."""
    narrow = dtype == torch.float32 and any(k is not None and k.dtype != dtype for k in kept)
    own = torch.bfloat16 if narrow else dtype
    return [None if k is None else _nhwc(k.to(own)) for k in kept], "_kept" if narrow else ""


def _image(shape: Sequence[int], *, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        shape,
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _nhwc(image: Any) -> Any:
    """The image with its channels next to each other in memory; a copy where they are not."""
    return None if image is None else image.contiguous(memory_format=torch.channels_last)


def _nhwc_sizes(image: Tensor) -> Sequence[int]:
    n, c, h, w = image.shape
    return n, h, w, c


def _call(name: str, image: Tensor, *arguments: Any) -> None:
    """Call a function of winograd.cpp for the dtype of its first argument, on torch's threads."""
    CPP.call(name, image, *arguments, torch.get_num_threads())


def _products(tiles: Sequence[int], rows: int, columns: int) -> int:
    """The operations of the matrix products, without those of the maps, which count as copies."""
    n, _, high, wide = tiles
    return 2 * POSITIONS * n * -(-high // TILE) * -(-wide // TILE) * rows * columns


def _convolution_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return _products(out_shape, weight[0], weight[1])


def _convolution_into_flops(y: Any, x: Any, *_: Any, **__: Any) -> int:
    return _products(y, x[1], y[1])


def _gradients_flops(x: Any, grad: Any, *_: Any, **__: Any) -> int:
    return _products(grad, x[1], grad[1])


winograd_convolution = register_operator(
    "winograd_convolution(Tensor x, Tensor weight, bool turned, int[] padding, Tensor? bias, Tensor? mask, "
    "Tensor? add, bool relu) -> Tensor",
    convolution,
    convolution_shape,
    namespace="graphnet_cpu",
)
winograd_convolution_ = register_operator(
    "winograd_convolution_(Tensor(a!) y, Tensor x, Tensor weight, bool turned, int[] padding, Tensor? bias, "
    "Tensor? mask, bool adds) -> ()",
    convolution_into,
    no_results,
    namespace="graphnet_cpu",
)
winograd_gradients = register_operator(
    "winograd_gradients(Tensor x, Tensor grad, int[] padding, Tensor? mask) -> (Tensor, Tensor)",
    gradients,
    gradients_shape,
    namespace="graphnet_cpu",
)
register_flop_formula(winograd_convolution_)(_convolution_into_flops)
register_flop_formula(winograd_convolution)(_convolution_flops)
register_flop_formula(winograd_gradients)(_gradients_flops)
