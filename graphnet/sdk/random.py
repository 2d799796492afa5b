"""Random numbers as pure functions of a key, in tensor operations only.

A key is an int32 tensor of shape (2,). The same key and shape give the same bits in eager code, under
Inductor and on CUDA, so a layer can draw its numbers again in backward instead of saving them. The
mixer is the 32-bit integer hash "lowbias32" (C. Wellons, hash-prospector, 2018): xor-shifts and odd
multipliers, in int32 arithmetic that wraps by design.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # lowbias32's, as signed int32


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's >> on int32 copies the sign, the mask takes the copies away."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 16)) * _MULTIPLIERS[0]
    x = (x ^ _shift_right(x, 15)) * _MULTIPLIERS[1]
    return x ^ _shift_right(x, 16)


def node_constant(node: str) -> int:
    """A signed 32-bit number for a node's name, the same in every process.

    >>> node_constant("drop_1") == node_constant("drop_1")
    True
    """
    digest = hashlib.blake2b(node.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little", signed=True)


def key(seed: Tensor, step: Tensor, constant: int) -> Tensor:
    """The key of one node in one step: int32 (2,), from 0-dim integer tensors on the same device.

    >>> seed, step = torch.tensor(0), torch.tensor(1)
    >>> torch.equal(key(seed, step, 7), key(seed, step, 7))
    True
    """
    low, high = seed.to(torch.int32), (seed >> 32).to(torch.int32)
    low_step, high_step = step.to(torch.int32), (step >> 32).to(torch.int32)
    first = _mix(_mix(low ^ constant) + low_step)
    second = _mix(_mix(high + first) ^ (high_step + constant))
    return torch.stack((first, second))


def bits(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform random int32 of a shape, on the key's device; element i depends on (key, i) only.

    Raises:
        ValueError: the shape has more than 2**31 elements.
    """
    count = math.prod(shape)
    if count > 1 << 31:
        raise ValueError(f"random.bits draws at most 2**31 numbers from one key, asked for {count}")
    index = torch.arange(count, dtype=torch.int32, device=key.device)
    return _mix(_mix(index ^ key[0]) + key[1]).reshape(tuple(shape))


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform float32 in [0, 1), multiples of 2**-24, of the given shape on the key's device.

    >>> u = uniform(key(torch.tensor(0), torch.tensor(0), 1), (1000,))
    >>> bool(((u >= 0) & (u < 1)).all())
    True
    """
    return _shift_right(bits(key, shape), 8).to(torch.float32) * (2.0**-24)
