"""Shared by all kernels: the devices on which they run, their dtypes, and their registration with torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from graphnet.sdk import Spec, register_operator
from graphnet_triton import INTERPRETED

WIDE = {  # what is computed in, by the dtype in memory
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}
if INTERPRETED:
    WIDE[torch.float64] = torch.float64  # for the conformance kit's differences
PROCESSORS = 132  # multiprocessors of an H100: work is cut into about as many pieces, or twice
_MOST = 2**31 - 1  # elements: the programs count them in 32 bits
NAMES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}

register = partial(register_operator, namespace="graphnet_triton", devices=("CUDA", "CPU"))


def runs_on(device: torch.device, x: Spec, *sizes: int) -> bool:
    """Whether the kernels run on this device for tensors like x, and for others with so many elements."""
    there = device.type == "cuda" or (INTERPRETED and device.type == "cpu")
    return there and x.dtype in WIDE and max(x.numel, *sizes, 0) <= _MOST


def sums_of(tensor: Tensor) -> Any:
    """The Triton dtype in which the numbers of a tensor are added up."""
    return NAMES[WIDE[tensor.dtype]]


def factor_of(tensor: Tensor) -> Any:
    """The Triton dtype in which a tensor is multiplied; the interpreter does not know bfloat16."""
    return sums_of(tensor) if INTERPRETED else NAMES[tensor.dtype]


def precision_of(tensor: Tensor) -> str:
    """How float32 is multiplied: in TF32 only if torch's setting allow_tf32 is True."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def side(size: int, *, most: int = 64) -> int:
    """How much of an axis a program takes at once: a power of two, at least 16, as matrix units need."""
    return max(16, min(most, power_of_2(size)))


def power_of_2(size: int) -> int:
    """The smallest power of 2 that is not less. (Triton's own function takes 3 us a call.)"""
    return 1 << (size - 1).bit_length()


def ceil_div(total: int, part: int) -> int:
    return -(-total // part)


def nhwc_like(x: Tensor) -> Tensor:
    """Make an uninitialized image like x, in channels_last."""
    return torch.empty_like(x, memory_format=torch.channels_last)
