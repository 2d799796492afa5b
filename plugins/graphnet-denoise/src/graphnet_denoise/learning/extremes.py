"""Extremes: numbers far outside the picture, such as those of hot pixels and cosmic rays.

In 16 bits, one hot pixel in a thousand has more variance than the picture. So the picture's range is found
from images without lone bright and dark pixels, and what lies far outside is set apart: a network that
learns from the images does not see it, and gives it back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Limits = tuple[float, float]
"""The lowest and the highest number that a network sees, in the numbers of the files."""

_PERCENTILES = (0.1, 1, 50, 99, 99.9)
_BEYOND = 1.0  # widths of the range: so far outside of it, numbers belong to the picture
_TAIL = 10.0  # times the way from the middle to the darkest or brightest 1 %


def calmed(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images (..., H, W) without lone bright and dark pixels: medians of 3 along rows, then along columns.

    The outermost pixels have their inner neighbour on both sides.

    >>> calmed(np.array([[1, 1, 1, 2], [1, 9, 2, 2], [1, 1, 2, 2]], np.float32))[1].tolist()
    [1.0, 1.0, 2.0, 2.0]
    """
    for axis in (-1, -2):
        if images.shape[axis] < 2:
            continue
        images = np.moveaxis(images, axis, -1)
        wide = np.concatenate((images[..., 1:2], images, images[..., -2:-1]), axis=-1)
        before, after = wide[..., :-2], wide[..., 2:]
        low, high = np.minimum(before, after), np.maximum(before, after)
        images = np.moveaxis(np.maximum(low, np.minimum(high, images)), -1, axis)
    return images


def picture_limits(images: Sequence[NDArray[np.float32]]) -> Limits | None:
    """Return the limits of pictures (C, H, W), or None where all but lone pixels are equal.

    The range of a picture has 99.8 % of its pixels, lone ones left out. Its limits lie as far outside of the
    range as the range is wide, so that noise and bright structures lie within them. Where few pixels are much
    brighter than all the rest, as stars are, the upper limit is 10 times as far from the median as the
    brightest 1 % begin; such pixels stand far above their noise. So it is for dark ones.
    """
    numbers = np.concatenate([calmed(image).ravel() for image in images])
    low, dark, middle, bright, high = (float(x) for x in np.percentile(numbers, _PERCENTILES))
    if low == high:
        return None
    width = high - low
    low, high = low - _BEYOND * width, high + _BEYOND * width
    if dark < middle:
        low = max(low, middle - _TAIL * (middle - dark))
    if bright > middle:
        high = min(high, middle + _TAIL * (bright - middle))
    return low, high


def within(image: NDArray[np.float32], limits: Limits | None) -> NDArray[np.float32]:
    """The part of the numbers that a network sees."""
    return image if limits is None else image.clip(*limits)


def outside(image: NDArray[np.float32], limits: Limits | None) -> NDArray[np.bool_]:
    """Which pixels lie outside the limits."""
    if limits is None:
        return np.zeros(image.shape, bool)
    found: NDArray[np.bool_] = (image < limits[0]) | (image > limits[1])
    return found
