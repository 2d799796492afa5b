"""Channels: the axes of images (N, C, *S), for layers that compute something for each channel."""

from __future__ import annotations

import math

from torch import Tensor


def pixel_axes(x: Tensor) -> tuple[int, ...]:
    """All axes of (N, C, *S) but that of the channels."""
    return (0, *range(2, x.ndim))


def values_per_channel(x: Tensor) -> int:
    """Return the number of values of one channel."""
    return x.shape[0] * math.prod(x.shape[2:])


def per_channel(channels: Tensor, x: Tensor) -> Tensor:
    """Reshape (C,) so that it broadcasts along the channels of x (N, C, *S)."""
    return channels.view(-1, *(1,) * (x.ndim - 2))
