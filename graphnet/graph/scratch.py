"""Scratch: the memory that torch's own convolutions use on a CPU beside their results.

Torch computes most convolutions with libraries such as oneDNN, which work within the processor's cache. What
no library supports (float64; float16 on most processors; bfloat16 without AVX512) torch computes itself, as
a matrix product with columns: a copy of the image that has each pixel once for each kernel position that
reads it. A function of torch says which way it takes. Groups run one after the other. The formulas for the
memory of torch's own ways come from observation, and a test compares them with torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten
_WAYS = torch._C._ConvBackend  # type: ignore[attr-defined]
# Torch's own ways, by the samples whose columns exist at once: the whole batch, one, or either.
_BATCH, _DILATED, _TRANSPOSED = _WAYS.Slow2d, _WAYS.SlowDilated2d, _WAYS.SlowTranspose2d


def scratch_bytes_on_cpu(operator: Any, arguments: Sequence[Any]) -> int:
    """The bytes that one of torch's convolutions uses on a CPU beside its result; 0 for other operators.

    >>> x, weight = torch.empty(2, 3, 8, 8).double(), torch.empty(5, 3, 3, 3).double()
    >>> setting = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # 2 * 3 * 3 * 3 * 8 * 8 numbers in columns
    >>> scratch_bytes_on_cpu(torch.ops.aten.convolution, (x, weight, None, *setting))
    27648
    """
    if operator is _aten.convolution:
        x, weight, _, *setting = arguments
        return _forward(x, weight, setting)
    if operator is _aten.convolution_backward:
        grad, x, weight, _, *setting, wanted = arguments
        return _backward(grad, x, weight, setting, wanted)
    return 0


def _forward(x: Tensor, weight: Tensor, setting: Sequence[Any]) -> int:
    y: Tensor = _aten.convolution(x.to("meta"), weight.to("meta"), None, *setting)
    samples: int | None = {
        _BATCH: 0 if _reads_single_pixels(weight, setting) else len(x),
        _TRANSPOSED: len(x),
        _DILATED: 1,
    }.get(_way(x, weight, setting))
    if samples is None:
        return 0
    groups: int = setting[-1]
    columns = samples * _columns_bytes(x, y, weight, setting)
    return columns if groups == 1 else max(columns + x.nbytes // groups, y.nbytes)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, setting: Sequence[Any], wanted: Sequence[bool]
) -> int:
    single = _reads_single_pixels(weight, setting)
    samples: int | None = {
        _BATCH: 0 if single or not wanted[1] else len(x),
        _TRANSPOSED: 0 if single else 1,
        _DILATED: 1,
    }.get(_way(x, weight, setting))
    if samples is None:
        return 0
    groups: int = setting[-1]
    columns = samples * _columns_bytes(x, grad, weight, setting)
    if groups == 1:
        return columns
    sizes = (x.nbytes, weight.nbytes, grad.shape[1] * grad.element_size())
    made = sum(size for size, wants in zip(sizes, wanted, strict=True) if wants)
    return max(columns + (x.nbytes + grad.nbytes) // groups, made)


def _way(x: Tensor, weight: Tensor, setting: Sequence[Any]) -> Any:
    """The way torch computes the convolution on a CPU, chosen by shapes and dtypes."""
    image, kernel = (torch.empty(1, dtype=one.dtype).expand(one.shape) for one in (x, weight))
    return torch._C._select_conv_backend(image, kernel, None, *setting, None)


def _reads_single_pixels(weight: Tensor, setting: Sequence[Any]) -> bool:
    """Whether the columns equal the image, so that torch needs no copy in some cases."""
    stride, padding, *_ = setting
    return {*weight.shape[2:], *stride} == {1} and {*padding} == {0}


def _columns_bytes(x: Tensor, y: Tensor, weight: Tensor, setting: Sequence[Any]) -> int:
    """The bytes of the columns of one sample and one group."""
    *_, transposed, _, groups = setting
    channels, few = (weight.shape[1], x) if transposed else (x.shape[1] // groups, y)
    places: int = math.prod((*weight.shape[2:], *few.shape[2:]))
    return channels * places * x.element_size()
