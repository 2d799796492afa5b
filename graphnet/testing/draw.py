"""Draw: random tensors for samples, the same in every run."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def draw(shape: tuple[int, ...], name: str, seed: int) -> Tensor:
    """Draw float64 numbers between -2 and 2 that are not near multiples of one half."""
    u = torch.rand(shape, generator=generator(name, seed), dtype=torch.float64) * 8.0
    return (u.floor() + 0.03 + 0.94 * u.frac()) / 2.0 - 2.0


def generator(name: str, seed: int) -> torch.Generator:
    """Make a random generator for one tensor, from its name and a seed."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()) + 7919 * seed)
