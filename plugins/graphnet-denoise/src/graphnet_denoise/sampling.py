"""Sampling: which of many things are looked at, and which part of an image."""

from __future__ import annotations

import numpy as np


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
