"""What all kernels here share: where they run, in which dtypes, and how torch comes to know them."""

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
    """Whether the kernels run there on tensors as x, and on others of so many elements."""
    there = device.type == "cuda" or (INTERPRETED and device.type == "cpu")
    return there and x.dtype in WIDE and max(x.numel, *sizes, 0) <= _MOST


def sums_of(tensor: Tensor) -> Any:
    """The Triton dtype in which what a tensor holds is added up."""
    return NAMES[WIDE[tensor.dtype]]


def factor_of(tensor: Tensor) -> Any:
    """The Triton dtype in which it is multiplied; the interpreter knows no bfloat16."""
    return sums_of(tensor) if INTERPRETED else NAMES[tensor.dtype]


def precision_of(tensor: Tensor) -> str:
    """How float32 is multiplied: by TF32 only where torch is told to (allow_tf32)."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"


def side(size: int, *, most: int = 64) -> int:
    """How much of an axis a program takes at once: a power of two, 16 at least, as matrix units want."""
    return max(16, min(most, power_of_2(size)))


def power_of_2(size: int) -> int:
    """The least that is no less. (Triton's own takes 3 us a call.)"""
    return 1 << (size - 1).bit_length()


def ceil_div(total: int, part: int) -> int:
    return -(-total // part)


def nhwc_like(x: Tensor) -> Tensor:
    """An empty image as x, in channels_last."""
    return torch.empty_like(x, memory_format=torch.channels_last)
