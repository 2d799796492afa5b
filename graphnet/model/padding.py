"""Padding: images of any size for a network whose input sizes must be multiples of a number."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect(length: int, padded: int, *, device: torch.device | None = None) -> Tensor:
    """Return the index of the element that each position of a padded axis shows.

    The axis is mirrored at its last element, which is not repeated, then again at its first element, as often
    as needed. An axis of length 1 repeats its only element.

    Args:
        length: the length of the axis.
        padded: the length of the padded axis.
        device: where the result is; None is the default device.

    Returns:
        int64 (padded,), values in 0..length - 1.

    >>> reflect(3, 8).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1]
    """
    period = max(1, 2 * (length - 1))
    position = torch.arange(padded, device=device) % period
    return torch.where(position < length, position, period - position)


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Pad the height and width of images to the next multiples of `divisor`, by reflection.

    Args:
        x: (..., H, W), any dtype.
        divisor: the number that must divide height and width.

    Returns:
        (..., H', W'), with the new rows and columns after the old ones, so that `y[..., :H, :W]` is x again;
        x itself if H and W are multiples already.

    >>> pad_to_multiple(torch.tensor([[[[1, 2, 3]]]]), 2).tolist()
    [[[[1, 2, 3, 2], [1, 2, 3, 2]]]]
    """
    for axis in (-2, -1):
        length = x.shape[axis]
        padded = -(-length // divisor) * divisor
        if padded != length:
            x = x.index_select(axis, reflect(length, padded, device=x.device))
    return x
