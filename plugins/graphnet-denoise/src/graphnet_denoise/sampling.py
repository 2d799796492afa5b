"""Sampling: which of many things are looked at, which part of an image, and the means of its blocks."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced, the first and the last among them.

    >>> evenly(9, 3)
    [0, 4, 8]
    >>> evenly(2, 5)
    [0, 1]
    """
    return sorted({int(at) for at in np.linspace(0, count - 1, min(count, most))})


def middle(length: int, side: int | None) -> slice:
    """The middle of an axis, of at most `side` pixels.

    >>> middle(10, 4)
    slice(3, 7, None)
    """
    if side is None or length <= side:
        return slice(0, length)
    first = (length - side) // 2
    return slice(first, first + side)


def block_means(image: NDArray[Number], side: int) -> NDArray[Number]:
    """The mean of each block of side x side pixels of an image (H, W, ...); its sides are multiples of that.

    The sums go over whole rows first: numpy's mean over both axes takes ten times as long.

    >>> block_means(np.arange(8.0).reshape(2, 4), 2)
    array([[2.5, 4.5]])
    """
    if side == 1:
        return image
    height, width, rest = image.shape[0] // side, image.shape[1] // side, image.shape[2:]
    rows = image.reshape(height, side, math.prod(image.shape[1:])).sum(axis=1)
    cells = rows.reshape(height, width, side, *rest)
    sums: NDArray[Number] = cells[:, :, 0].copy()
    for column in range(1, side):
        sums += cells[:, :, column]
    sums /= side * side
    return sums
