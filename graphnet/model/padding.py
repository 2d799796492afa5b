"""Images of any size through a network that wants multiples: pad by reflection, crop back."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect(length: int, padded: int) -> Tensor:
    """Where each of `padded` positions finds its value on an axis of `length`: int64 (padded,).

    The axis is mirrored at its last element, which is not repeated, then again at the first, as
    often as needed; an axis of length 1 repeats its only element.

    >>> reflect(3, 8).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1]
    """
    period = max(1, 2 * (length - 1))
    position = torch.arange(padded) % period
    return torch.where(position < length, position, period - position)


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """X (..., H, W) with H and W brought to the next multiples of `divisor`, by reflection.

    The new rows and columns follow the old ones, so `y[..., :H, :W]` crops back. Returns x itself
    when it fits already.

    >>> pad_to_multiple(torch.tensor([[[[1, 2, 3]]]]), 2).tolist()
    [[[[1, 2, 3, 2], [1, 2, 3, 2]]]]
    """
    for axis in (-2, -1):
        length = x.shape[axis]
        padded = -(-length // divisor) * divisor
        if padded != length:
            x = x.index_select(axis, reflect(length, padded).to(x.device))
    return x
